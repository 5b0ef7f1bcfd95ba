//! Lines of an Asterisk configuration file without comments.
//!
//! ```text
//!   key = value ; to the end of the line      \; is a semicolon
//!   ;-- over lines, may be nested --;         ;--- is a line comment
//! ```
//!
//! There is no continuation of lines: a backslash at the end is part of the value.

use super::error::{Position, Problem};

/// A line with something on it.
#[derive(Debug)]
pub(super) struct Line {
    number: usize,
    /// Text without comments and surrounding white space, semicolons unescaped.
    pub(super) text: String,
    /// Column of each character.
    columns: Vec<usize>,
}

impl Line {
    /// Where the byte at `offset` of the text stands in the file.
    pub(super) fn at(&self, offset: usize) -> Position {
        let index = self.text[..offset].chars().count();
        let column = self.columns.get(index).copied().unwrap_or_else(|| self.columns.last().map_or(1, |last| last + 1));
        Position { line: self.number, column }
    }
}

/// The lines that hold something, and where a block comment begins that never ends.
pub(super) fn lines(text: &str) -> (Vec<Line>, Option<(Position, Problem)>) {
    let mut all = Vec::new();
    // Where each block comment we are in began.
    let mut open: Vec<Position> = Vec::new();
    for (text, number) in text.lines().zip(1..) {
        let chars: Vec<char> = text.chars().collect();
        let mut line = Line { number, text: String::new(), columns: Vec::new() };
        let mut at = 0;
        while at < chars.len() {
            let rest = &chars[at..];
            let is_opening = rest.starts_with(&[';', '-', '-']) && rest.get(3) != Some(&'-');
            at += if is_opening {
                open.push(Position { line: number, column: at + 1 });
                3
            } else if !open.is_empty() {
                if rest.starts_with(&['-', '-', ';']) {
                    open.pop();
                    3
                } else {
                    1
                }
            } else if rest[0] == ';' {
                break;
            } else {
                let is_escape = rest.starts_with(&['\\', ';']);
                line.text.push(if is_escape { ';' } else { rest[0] });
                line.columns.push(at + 1);
                1 + usize::from(is_escape)
            };
        }
        line.trim();
        if !line.text.is_empty() {
            all.push(line);
        }
    }
    (all, open.first().map(|position| (*position, Problem::OpenComment)))
}

impl Line {
    fn trim(&mut self) {
        let is_blank = |c: char| c.is_whitespace() || c.is_control();
        let start = self.text.chars().take_while(|c| is_blank(*c)).count();
        self.text = self.text.trim_matches(is_blank).to_owned();
        self.columns.drain(..start);
        self.columns.truncate(self.text.chars().count());
    }
}
