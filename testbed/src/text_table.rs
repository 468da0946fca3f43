//! Tables for people: columns as wide as they must be, numbers to the right.

/// A table with a heading and a rule below it. The first column stands to the left, all others to the right.
pub(crate) fn render(heading: &[&str], rows: &[Vec<String>]) -> String {
    let mut widths: Vec<usize> = heading.iter().map(|cell| cell.chars().count()).collect();
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let line = |cells: &[String]| {
        let cells = cells.iter().zip(&widths).enumerate().map(|(column, (cell, width))| match column {
            0 => format!("{cell:<width$}"),
            _ => format!("{cell:>width$}"),
        });
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned() + "\n"
    };
    let heading: Vec<String> = heading.iter().map(|cell| (*cell).to_owned()).collect();
    let rule: Vec<String> = widths.iter().map(|width| "-".repeat(*width)).collect();
    let mut text = line(&heading) + &line(&rule);
    text.extend(rows.iter().map(|row| line(row)));
    text
}

/// Milliseconds as people read them: no decimals where they say nothing; `-` for none.
pub(crate) fn ms(value: Option<f64>) -> String {
    match value {
        None => "-".to_owned(),
        Some(value) if value < 10.0 => format!("{value:.1}"),
        Some(value) => format!("{value:.0}"),
    }
}

/// Bytes in MiB; `-` for none.
pub(crate) fn mib(bytes: Option<u64>) -> String {
    bytes.map_or_else(|| "-".to_owned(), |bytes| format!("{:.1}", bytes as f64 / f64::from(1 << 20)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned() {
        let rows = [vec!["1".to_owned(), "12.5".to_owned()], vec!["10".to_owned(), "-".to_owned()]];
        let expected = "move     ms\n----  -----\n";
        let text = render(&["move", "   ms"], &rows);
        assert!(text.starts_with(expected), "{text}");
        assert!(text.ends_with("1      12.5\n10        -\n"), "{text}");
    }

    #[test]
    fn numbers_have_as_many_digits_as_they_mean() {
        assert_eq!([ms(None), ms(Some(3.21)), ms(Some(1234.5))], ["-", "3.2", "1234"]);
        assert_eq!(mib(Some(1_572_864)), "1.5");
    }
}
