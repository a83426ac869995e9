//! A small chart in block characters.

const WIDTH: usize = 64;
const HEIGHT: usize = 4;
const BLOCKS: [char; 9] = [' ', '▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// Draws samples of (second, value), the highest of each column, with a mark under each of the given moments.
pub(crate) fn draw(samples: &[(f64, f64)], marks: &[f64]) -> String {
    let end = samples.iter().map(|(at, _)| *at).chain(marks.iter().copied()).fold(0.1, f64::max);
    let column = |at: f64| ((at / end * WIDTH as f64) as usize).min(WIDTH - 1);
    let mut columns = [0.0f64; WIDTH];
    for (at, value) in samples {
        let highest = &mut columns[column(*at)];
        *highest = highest.max(*value);
    }
    let top = columns.iter().copied().fold(0.1, f64::max);
    let mut out = String::new();
    for row in (0..HEIGHT).rev() {
        let label = if row + 1 == HEIGHT { format!("{top:>5.1} s") } else { " ".repeat(7) };
        let cells: String = columns
            .iter()
            .map(|value| {
                // Eighths of a row that this column fills above the rows below.
                let eighths = (value / top * (HEIGHT * 8) as f64).ceil() as usize;
                BLOCKS[eighths.saturating_sub(row * 8).min(8)]
            })
            .collect();
        out += &format!("{label} │{cells}\n");
    }
    let mut axis = ['─'; WIDTH];
    for mark in marks {
        axis[column(*mark)] = '×';
    }
    out += &format!("{:>5.1} s └{}\n", 0.0, axis.iter().collect::<String>());
    let ending = format!("{end:.0} s");
    out + &format!("         0{ending:>width$}\n", width = WIDTH - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heights_and_marks() {
        let samples: Vec<(f64, f64)> =
            (0..64).map(|at| (f64::from(at), if at < 32 { 4.0 } else { 0.0 })).collect();
        let chart = draw(&samples, &[32.0]);
        let lines: Vec<&str> = chart.lines().collect();
        assert_eq!(lines.len(), HEIGHT + 2);
        assert!(lines[0].starts_with("  4.0 s │███"), "{chart}");
        assert_eq!(lines[0].matches('█').count(), 32, "{chart}");
        assert_eq!(lines[HEIGHT].matches('×').count(), 1, "{chart}");
        assert!(lines[HEIGHT + 1].ends_with("63 s"), "{chart}");
    }
}
