//! Printing: results to stdout, everything else to stderr. A closed pipe ends the program quietly;
//! results that cannot be written for another reason, a full disk say, end it with words.

use std::io::{self, IsTerminal, Write};

use crate::cli::FAILED;

/// Prints a line of results.
pub fn line(text: &str) {
    end_unless(writeln!(io::stdout().lock(), "{text}"));
}

/// Prints bytes of results as they are.
pub fn bytes(bytes: &[u8]) {
    let mut stdout = io::stdout().lock();
    // What is kept back would be lost without a word at the end.
    end_unless(stdout.write_all(bytes).and_then(|()| stdout.flush()));
}

/// Prints a line for the person at the terminal.
pub fn error_line(text: &str) {
    let _ = writeln!(io::stderr().lock(), "{text}");
}

/// Shows progress in place on a terminal; says nothing elsewhere.
pub fn progress(text: &str) {
    let stderr = io::stderr();
    if stderr.is_terminal() && can_move() {
        let _ = write!(stderr.lock(), "\r\x1b[2K{text}");
        let _ = stderr.lock().flush();
    }
}

/// Takes the progress line away.
pub fn progress_end() {
    progress("");
}

/// Whether what is printed there may have colours.
pub fn coloured(stream: &impl IsTerminal) -> bool {
    let refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    stream.is_terminal() && can_move() && !refused
}

/// A terminal that knows no escape sequences says so.
fn can_move() -> bool {
    std::env::var("TERM").is_ok_and(|term| term != "dumb")
}

/// Ends the program where results cannot be written: there is no use in making more of them.
fn end_unless(outcome: io::Result<()>) {
    let Err(error) = outcome else { return };
    // Somebody piped us into `head`: there is nobody left to print for.
    if error.kind() == io::ErrorKind::BrokenPipe {
        std::process::exit(0);
    }
    error_line(&format!("tahini: the results cannot be written: {error}"));
    std::process::exit(i32::from(FAILED));
}

/// A table with a header, columns aligned; `right` names the columns of numbers.
pub fn table(header: &[&str], rows: &[Vec<String>], right: &[usize]) -> String {
    let mut widths: Vec<usize> = header.iter().map(|name| name.chars().count()).collect();
    for row in rows {
        for (at, cell) in row.iter().enumerate() {
            widths[at] = widths[at].max(cell.chars().count());
        }
    }
    let pad = |cells: Vec<&str>| -> String {
        let mut out = String::new();
        for (at, cell) in cells.iter().enumerate() {
            let gap = " ".repeat(widths[at] - cell.chars().count());
            if right.contains(&at) {
                out.push_str(&gap);
                out.push_str(cell);
            } else {
                out.push_str(cell);
                out.push_str(&gap);
            }
            out.push_str("  ");
        }
        out.trim_end().to_owned()
    };
    let mut lines = vec![pad(header.to_vec())];
    lines.extend(
        rows.iter()
            .map(|row| pad(row.iter().map(String::as_str).collect())),
    );
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    #[test]
    fn columns_line_up_and_numbers_stand_right() {
        let rows = vec![
            vec!["a".to_owned(), "10".to_owned()],
            vec!["long".to_owned(), "5".to_owned()],
        ];
        assert_eq!(
            super::table(&["pipe", "read"], &rows, &[1]),
            "pipe  read\na       10\nlong     5"
        );
    }
}
