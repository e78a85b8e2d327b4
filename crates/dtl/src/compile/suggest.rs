//! The nearest name for a misspelt one.

/// Help that ends a message: `; did you mean "upper"?`, or nothing when no name is near.
pub(crate) fn nearest<'a>(found: &str, known: impl Iterator<Item = &'a str>) -> String {
    let wanted: Vec<char> = found.chars().take(LONGEST + 1).collect();
    if wanted.len() > LONGEST {
        return String::new();
    }
    let most = 1 + wanted.len() / 4;
    let near = known
        // A letter that is missing costs as much as one that has to change.
        .filter(|name| name.chars().count().abs_diff(wanted.len()) <= most)
        .map(|name| (distance(&wanted, name), name))
        .filter(|(distance, _)| *distance <= most)
        .min();
    near.map(|(_, name)| format!("; did you mean \"{name}\"?"))
        .unwrap_or_default()
}

/// Longer texts are no misspelt names.
const LONGEST: usize = 40;

/// How many letters have to change, with swapped neighbours counted once and case ignored.
fn distance(a: &[char], b: &str) -> usize {
    let fold = |c: &char| c.to_ascii_lowercase();
    let b: Vec<char> = b.chars().take(2 * LONGEST).collect();
    let mut before: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, to) in b.iter().enumerate() {
            let same = fold(from) == fold(to);
            let mut cost = (last[j] + usize::from(!same))
                .min(last[j + 1] + 1)
                .min(row[j] + 1);
            let swapped =
                i > 0 && j > 0 && fold(from) == fold(&b[j - 1]) && fold(&a[i - 1]) == fold(to);
            if swapped {
                cost = cost.min(before[j - 1] + 1);
            }
            row.push(cost);
        }
        before = std::mem::replace(&mut last, row);
    }
    last[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_names_are_suggested_and_others_are_not() {
        let known = ["upper", "lower", "concat", "coalesce"];
        for (found, help) in [
            ("uper", "; did you mean \"upper\"?"),
            ("Upper", "; did you mean \"upper\"?"),
            ("conact", "; did you mean \"concat\"?"),
            ("coalsece", "; did you mean \"coalesce\"?"),
            ("frobnicate", ""),
        ] {
            assert_eq!(nearest(found, known.into_iter()), help, "{found}");
        }
    }
}
