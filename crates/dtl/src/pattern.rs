//! Wildcard patterns: `*` stands for any text, `?` for one character. There is nothing else.

/// A compiled pattern.
#[derive(Clone, Debug)]
pub(crate) enum Pattern {
    /// No wildcard in it.
    Exact(Box<str>),
    /// `*`.
    All,
    /// Anything else.
    Wild(Box<[char]>),
}

impl Pattern {
    pub(crate) fn new(text: &str) -> Pattern {
        if text == "*" {
            Pattern::All
        } else if text.contains(['*', '?']) {
            Pattern::Wild(text.chars().collect())
        } else {
            Pattern::Exact(text.into())
        }
    }

    /// Whether the whole of `text` matches.
    pub(crate) fn matches(&self, text: &str) -> bool {
        match self {
            Pattern::Exact(exact) => **exact == *text,
            Pattern::All => true,
            Pattern::Wild(pattern) => wild(pattern, text),
        }
    }
}

/// Matches without recursion: on a mismatch the last `*` takes one character more. The time is at
/// most the product of both lengths.
fn wild(pattern: &[char], text: &str) -> bool {
    let mut at = 0;
    let mut rest = text.chars();
    let mut star: Option<(usize, std::str::Chars<'_>)> = None;
    loop {
        let mut ahead = rest.clone();
        match (pattern.get(at), ahead.next()) {
            (Some('*'), _) => {
                at += 1;
                star = Some((at, rest.clone()));
            }
            (None, None) => return true,
            (Some(&wanted), Some(found)) if wanted == '?' || wanted == found => {
                at += 1;
                rest = ahead;
            }
            _ => match &mut star {
                Some((after, from)) => {
                    if from.next().is_none() {
                        return false;
                    }
                    at = *after;
                    rest = from.clone();
                }
                None => return false,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wildcards_match_whole_texts() {
        for (pattern, text, expected) in [
            ("a*p*a", "alpha", true),
            ("a*p*a", "alpaca", true),
            ("a*p*a", "alp", false),
            ("?", "å", true),
            ("?", "", false),
            ("*", "", true),
            ("*_sport", "ball_sport", true),
            ("*_sport", "sport", false),
            ("a?c", "abc", true),
            ("a?c", "ac", false),
            ("**a", "bba", true),
            ("abc", "abc", true),
            ("abc", "abcd", false),
            ("*.", "E.", true),
            ("*ab", "aab", true),
        ] {
            assert_eq!(
                Pattern::new(pattern).matches(text),
                expected,
                "{pattern} {text}"
            );
        }
    }

    #[test]
    fn many_stars_do_not_take_exponential_time() {
        let pattern = Pattern::new(&"*a".repeat(40));
        assert!(!pattern.matches(&format!("{}b", "a".repeat(4000))));
    }
}
