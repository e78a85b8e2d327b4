//! Wildcard patterns: `*` stands for any text, `?` for one character. There is nothing else.

/// A compiled pattern.
#[derive(Clone, Debug)]
pub(crate) enum Pattern {
    /// No wildcard in it.
    Exact(Box<str>),
    /// `*`.
    All,
    /// Anything else.
    Wild(Wild),
}

/// The parts of a pattern between its `*`; a single one when there is none.
#[derive(Clone, Debug)]
pub(crate) struct Wild(Box<[Part]>);

/// A text of which some characters may be left open.
#[derive(Clone, Debug)]
struct Part {
    text: Box<str>,
    /// There is a `?` in it.
    open: bool,
}

impl Pattern {
    pub(crate) fn new(text: &str) -> Pattern {
        if text == "*" {
            Pattern::All
        } else if text.contains(['*', '?']) {
            Pattern::Wild(Wild(text.split('*').map(Part::new).collect()))
        } else {
            Pattern::Exact(text.into())
        }
    }

    /// Whether the whole of `text` matches.
    pub(crate) fn matches(&self, text: &str) -> bool {
        match self {
            Pattern::Exact(exact) => **exact == *text,
            Pattern::All => true,
            Pattern::Wild(wild) => wild.matches(text),
        }
    }

    /// How many characters are looked at to find out about `text`, in the worst case.
    pub(crate) fn effort(&self, text: &str) -> usize {
        match self {
            Pattern::Exact(exact) if exact.len() == text.len() => text.len() / 8,
            Pattern::Exact(_) | Pattern::All => 0,
            // What has no open characters is found in one go.
            Pattern::Wild(Wild(parts)) => {
                let open = parts.iter().filter(|part| part.open);
                let longest = open.map(|part| part.text.len()).max().unwrap_or(0);
                text.len().saturating_mul(1 + longest)
            }
        }
    }
}

impl Wild {
    fn matches(&self, text: &str) -> bool {
        let (first, rest) = self.0.split_first().expect("splitting gives a part");
        let Some((last, between)) = rest.split_last() else {
            return first.start(text) == Some("");
        };
        let Some(mut text) = first.start(text) else {
            return false;
        };
        // The first place where a part stands leaves most for those after it.
        for part in between {
            match part.find(text) {
                Some(rest) => text = rest,
                None => return false,
            }
        }
        last.ends(text)
    }
}

impl Part {
    fn new(text: &str) -> Part {
        Part {
            text: text.into(),
            open: text.contains('?'),
        }
    }

    /// What comes after the part at the start of a text.
    fn start<'t>(&self, text: &'t str) -> Option<&'t str> {
        if !self.open {
            return text.strip_prefix(&*self.text);
        }
        let mut rest = text.chars();
        for wanted in self.text.chars() {
            let found = rest.next()?;
            if wanted != '?' && wanted != found {
                return None;
            }
        }
        Some(rest.as_str())
    }

    /// What comes after the first place in a text where the part stands.
    fn find<'t>(&self, text: &'t str) -> Option<&'t str> {
        if !self.open {
            let at = text.find(&*self.text)?;
            return Some(&text[at + self.text.len()..]);
        }
        let places = text.char_indices().map(|(at, _)| at);
        places.filter_map(|at| self.start(&text[at..])).next()
    }

    /// Whether a text ends with the part.
    fn ends(&self, text: &str) -> bool {
        if !self.open {
            return text.ends_with(&*self.text);
        }
        let mut rest = text.chars().rev();
        let mut wanted = self.text.chars().rev();
        wanted.all(|wanted| {
            rest.next()
                .is_some_and(|found| wanted == '?' || wanted == found)
        })
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
            ("a*a", "a", false),
            ("a*a", "aa", true),
            ("*a?c*d?", "xabcadcabcdå", true),
            ("*a?c*d?", "xabcadcabcd", false),
            ("*?", "", false),
            ("*?", "å", true),
            ("?*?", "å", false),
            ("", "", true),
            ("", "a", false),
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
