//! Words and places for text that is no JSON.

use jsonc_parser::ParseStringErrorKind as InString;
use jsonc_parser::errors::{ParseError, ParseErrorKind as Kind};

use super::text::Spans;

/// The most characters of a text that a message shows.
const SHOWN: usize = 20;

/// Where a syntax error stands (a byte of the text), and what was expected and found.
pub(super) fn explain(text: &str, error: &ParseError, spans: &Spans) -> (usize, String) {
    let at = error.range().start.min(text.len());
    let unterminated = matches!(
        error.kind(),
        Kind::UnterminatedObject | Kind::UnterminatedArray
    );
    // What ends too early is told where it began: its end is everybody's end.
    if (unterminated || next(text, at) == text.len())
        && let Some((open, opening)) = still_open(text, text.len())
    {
        let end = spans.place(text.trim_end().len());
        let (noun, closing) = named(opening);
        let message = format!(
            "expected {closing:?} to close the {noun} that starts here, found the end of the text \
             in line {}, column {}",
            end.line, end.column
        );
        return (open, message);
    }
    if let Kind::UnexpectedCloseBrace | Kind::UnexpectedCloseBracket = error.kind()
        && let Some((open, opening)) = still_open(text, at)
        && !matches!(
            (opening, error.kind()),
            ('{', Kind::UnexpectedCloseBrace) | ('[', Kind::UnexpectedCloseBracket)
        )
    {
        let start = spans.place(open);
        let (noun, closing) = named(opening);
        let message = format!(
            "expected {closing:?} to close the {noun} that starts in line {}, column {}, found {}",
            start.line,
            start.column,
            found(text, at)
        );
        return (at, message);
    }
    (
        at,
        format!(
            "expected {}, found {}",
            expected(error.kind()),
            found(text, at)
        ),
    )
}

fn expected(kind: &Kind) -> &'static str {
    match kind {
        Kind::BareDecimalPointNumbersNotAllowed => "digits on both sides of the decimal point",
        Kind::ExpectedColonAfterObjectKey => "a colon behind the property's name",
        Kind::ExpectedObjectValue => "a value behind the colon",
        Kind::ExpectedDigit => "a digit",
        Kind::ExpectedDigitFollowingNegativeSign => "a digit behind the minus",
        Kind::ExpectedPlusMinusOrDigitInNumberLiteral => "a plus, a minus or a digit",
        Kind::ExpectedStringObjectProperty | Kind::UnexpectedTokenInObject => {
            "a property's name in double quotes"
        }
        Kind::HexadecimalNumbersNotAllowed => "a decimal number",
        Kind::ExpectedComma => "a comma before the next value",
        Kind::MultipleRootJsonValues => "the end of the text behind its one value",
        Kind::SingleQuotedStringsNotAllowed => "text in double quotes",
        Kind::String(InString::UnterminatedStringLiteral) => "text with a closing quote",
        Kind::String(_) => "text with escapes of JSON (\\\" \\\\ \\/ \\b \\f \\n \\r \\t \\u0000)",
        Kind::UnaryPlusNumbersNotAllowed => "a number without a plus",
        Kind::UnterminatedCommentBlock => "a comment that ends with */",
        Kind::NestingDepthExceeded => "lists and objects nested at most 512 levels deep",
        _ => "a value (text, a number, true, false, null, a list or an object)",
    }
}

fn named(opening: char) -> (&'static str, &'static str) {
    match opening {
        '[' => ("list", "]"),
        _ => ("object", "}"),
    }
}

/// What stands at byte `at` or, behind blanks and comments, after it.
fn found(text: &str, at: usize) -> String {
    let rest = &text[next(text, at)..];
    let Some(first) = rest.chars().next() else {
        return "the end of the text".to_owned();
    };
    let is_word = |letter: char| letter.is_alphanumeric() || "_-+.$".contains(letter);
    let end = match first {
        '"' | '\'' => rest[1..]
            .find([first, '\n'])
            .map_or(rest.len(), |at| at + 2),
        _ if is_word(first) => rest.find(|letter| !is_word(letter)).unwrap_or(rest.len()),
        _ => first.len_utf8(),
    };
    let token = rest[..end].trim_end();
    match token.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}…", &token[..end]),
        None => token.to_owned(),
    }
}

/// The first byte from `at` that is neither blank nor in a comment.
fn next(text: &str, at: usize) -> usize {
    let mut at = at;
    loop {
        let rest = &text[at..];
        at += rest.len() - rest.trim_start().len();
        match comment(&text[at..]) {
            Some(length) => at += length,
            None => return at,
        }
    }
}

/// The length of the comment that a text starts with.
fn comment(text: &str) -> Option<usize> {
    if text.starts_with("//") {
        return Some(text.find('\n').unwrap_or(text.len()));
    }
    let inside = text.strip_prefix("/*")?;
    Some(inside.find("*/").map_or(text.len(), |end| end + 4))
}

/// The innermost list or object that is open at byte `end`, and with what it opens.
fn still_open(text: &str, end: usize) -> Option<(usize, char)> {
    let mut open = Vec::new();
    let mut at = 0;
    while at < end {
        let rest = &text[at..];
        let letter = rest.chars().next()?;
        match letter {
            '{' | '[' => open.push((at, letter)),
            '}' | ']' => {
                open.pop();
            }
            '"' => {
                at += quoted(rest);
                continue;
            }
            '/' => {
                if let Some(length) = comment(rest) {
                    at += length;
                    continue;
                }
            }
            _ => {}
        }
        at += letter.len_utf8();
    }
    open.pop()
}

/// The length of the text in quotes that a text starts with.
fn quoted(text: &str) -> usize {
    let mut escaped = false;
    for (at, letter) in text.char_indices().skip(1) {
        match letter {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return at + 1,
            _ => {}
        }
    }
    text.len()
}
