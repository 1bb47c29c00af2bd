//! Columns aligned as Go's `text/tabwriter` aligns them.

const MIN_WIDTH: usize = 10;
const PADDING: usize = 3;

/// Aligns tab-separated cells; text after a line's last tab is left as it is.
///
/// A column's width is the widest of its cells in the run of neighbouring lines that have the column.
pub(crate) fn align(text: &str) -> String {
    align_with(text, MIN_WIDTH, PADDING)
}

/// [`align`] with another least width and padding.
pub(crate) fn align_with(text: &str, min_width: usize, padding: usize) -> String {
    let lines: Vec<Vec<&str>> = text
        .lines()
        .map(|line| line.split('\t').collect())
        .collect();
    let mut widths: Vec<Vec<usize>> = lines.iter().map(|cells| vec![0; cells.len() - 1]).collect();
    let columns = widths.iter().map(Vec::len).max().unwrap_or(0);
    for column in 0..columns {
        let mut start = 0;
        while start < lines.len() {
            let has = |line: &usize| widths[*line].len() > column;
            let end = (start..lines.len())
                .take_while(has)
                .last()
                .map_or(start, |last| last + 1);
            let widest = lines[start..end]
                .iter()
                .map(|cells| cells[column].chars().count() + padding)
                .max();
            for line in &mut widths[start..end] {
                line[column] = widest.unwrap_or(0).max(min_width);
            }
            start = end.max(start + 1);
        }
    }
    let mut out = String::with_capacity(text.len() * 2);
    for (cells, widths) in lines.iter().zip(&widths) {
        for (column, cell) in cells.iter().enumerate() {
            match widths.get(column) {
                Some(width) => {
                    out.push_str(cell);
                    out.extend(std::iter::repeat_n(
                        ' ',
                        width.saturating_sub(cell.chars().count()),
                    ));
                }
                None => out.push_str(cell),
            }
        }
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_are_padded_to_the_widest_of_the_run() {
        assert_eq!(
            align("A\tB\nlonger than ten\tx\n"),
            "A                 B\nlonger than ten   x\n"
        );
        assert_eq!(align("ID\tNAME\n"), "ID        NAME\n");
    }

    #[test]
    fn a_line_without_the_column_ends_the_run() {
        assert_eq!(
            align("abcdefghijkl\tx\nplain\nz\ty\n"),
            "abcdefghijkl   x\nplain\nz         y\n"
        );
    }
}
