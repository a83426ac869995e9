//! A section as a picture: a bar for each median, with a whisker from the least to the most.
//!
//! Text and shapes alone, on a ground of its own in the reader's light or dark colours; nothing is loaded.

use std::fmt::Write as _;

use crate::section::{Samples, Section, Unit};

const WIDTH: f64 = 720.0;
/// For the value behind the longest bar.
const RIGHT: f64 = 100.0;
/// What a letter takes at most, on the average.
const LETTER: f64 = 7.0;
const ROW: f64 = 26.0;
const TITLE: f64 = 34.0;

const STYLE: &str = "<style>
text{font:13px system-ui,sans-serif;fill:#1f2328}.title{font-weight:600}.ground{fill:#fff}
.ours{fill:#0969da}.peer{fill:#afb8c1}.line{stroke:#57606a;stroke-width:1.5}.limit{stroke:#cf222e;stroke-dasharray:4 3}
@media(prefers-color-scheme:dark){text{fill:#e6edf3}.ground{fill:#0d1117}.ours{fill:#2f81f7}.peer{fill:#57606a}
.line{stroke:#c9d1d9}.limit{stroke:#f85149}}
</style>";

/// Bars that share a scale.
struct Group<'a> {
    title: String,
    unit: Unit,
    bars: Vec<(&'a Samples, &'static str)>,
    limit: Option<f64>,
}

pub(crate) fn draw(section: &Section) -> String {
    let groups = groups(section);
    let height: f64 = groups.iter().map(Group::height).sum::<f64>() + 12.0;
    let mut picture = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" \
         height=\"{height}\" role=\"img\" aria-label=\"{name}\">\n{STYLE}\n\
         <rect class=\"ground\" width=\"{WIDTH}\" height=\"{height}\" rx=\"6\"/>\n",
        name = escape(&section.name)
    );
    let mut top = 0.0;
    for group in &groups {
        group.draw(&mut picture, top);
        top += group.height();
    }
    picture + "</svg>\n"
}

/// One for each comparison; what is compared with nobody shows its figures, one group for each unit and limit.
fn groups(section: &Section) -> Vec<Group<'_>> {
    let compared = section.comparisons.iter().map(|one| Group {
        title: format!("{}: {}, less is better", section.name, one.title),
        unit: one.unit,
        bars: std::iter::once((&one.ours, "ours"))
            .chain(one.peers.iter().map(|peer| (peer, "peer")))
            .collect(),
        limit: None,
    });
    let mut groups: Vec<Group> = compared.collect();
    if !groups.is_empty() {
        return groups;
    }
    for figure in &section.figures {
        let bar = (&figure.samples, "ours");
        match groups.iter_mut().find(|group| group.unit == figure.unit) {
            Some(group) => group.bars.push(bar),
            None => groups.push(Group {
                title: format!("{}: {}", section.name, kind(figure.unit)),
                unit: figure.unit,
                bars: vec![bar],
                limit: figure.limit,
            }),
        }
    }
    groups
}

fn kind(unit: Unit) -> &'static str {
    match unit {
        Unit::Seconds => "seconds",
        Unit::Milliseconds => "milliseconds",
        Unit::Mebibytes => "resident, and the limit",
        Unit::Count => "number",
    }
}

impl Group<'_> {
    fn height(&self) -> f64 {
        TITLE + ROW * f64::from(u16::try_from(self.bars.len()).unwrap_or(u16::MAX))
    }

    fn draw(&self, picture: &mut String, top: f64) {
        let most = self.bars.iter().map(|(samples, _)| samples.max()).fold(0.0, f64::max);
        let most = most.max(self.limit.unwrap_or_default()).max(f64::MIN_POSITIVE);
        // The names stand before the bars.
        let letters = self.bars.iter().map(|(samples, _)| samples.name.chars().count()).max().unwrap_or(0);
        let left = 20.0 + LETTER * f64::from(u16::try_from(letters).unwrap_or(u16::MAX)).clamp(20.0, 60.0);
        let x = |value: f64| left + (WIDTH - RIGHT - left) * value / most;
        text(picture, "title", 12.0, top + 23.0, "start", &self.title);
        for ((samples, class), row) in self.bars.iter().zip(0_u16..) {
            let y = top + TITLE + ROW * f64::from(row);
            let (median, min, max) = (samples.median(), samples.min(), samples.max());
            text(picture, "", left - 8.0, y + 15.0, "end", &samples.name);
            shape(
                picture,
                format_args!(
                    "<rect class=\"{class}\" x=\"{left}\" y=\"{:.1}\" width=\"{:.1}\" height=\"16\" rx=\"2\"/>",
                    y + 2.0,
                    (x(median) - left).max(1.0)
                ),
            );
            if max > min {
                let (from, to, middle) = (x(min), x(max), y + 10.0);
                let (above, below) = (middle - 4.0, middle + 4.0);
                shape(
                    picture,
                    format_args!(
                        "<path class=\"line\" d=\"M{from:.1} {middle:.1}H{to:.1}M{from:.1} {above:.1}V{below:.1}\
                         M{to:.1} {above:.1}V{below:.1}\"/>"
                    ),
                );
            }
            text(picture, "", x(max) + 8.0, y + 15.0, "start", &self.unit.show(median));
        }
        if let Some(limit) = self.limit {
            let (x, from, to) = (x(limit), top + TITLE - 6.0, top + self.height());
            shape(picture, format_args!("<path class=\"line limit\" d=\"M{x:.1} {from:.1}V{to:.1}\"/>"));
            text(picture, "", x + 6.0, top + 23.0, "end", &format!("at most {}", self.unit.show(limit)));
        }
    }
}

fn text(picture: &mut String, class: &str, x: f64, y: f64, anchor: &str, words: &str) {
    let class = if class.is_empty() { String::new() } else { format!(" class=\"{class}\"") };
    shape(
        picture,
        format_args!(
            "<text{class} x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{}</text>",
            escape(words)
        ),
    );
}

fn shape(picture: &mut String, shape: std::fmt::Arguments<'_>) {
    writeln!(picture, "{shape}").expect("write to memory");
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::section::Comparison;

    #[test]
    fn the_longest_bar_fits_and_the_others_are_in_proportion() {
        let samples = |name: &str, values: &[f64]| Samples { name: name.into(), values: values.to_vec() };
        let section = Section {
            name: "copy".into(),
            what: String::new(),
            commands: Vec::new(),
            comparisons: vec![Comparison::time(
                "a < b",
                samples("crossfade", &[1.0, 2.0, 4.0]),
                [samples("pipe", &[4.0])],
            )],
            figures: Vec::new(),
        };
        let picture = draw(&section);
        assert!(picture.contains("class=\"ours\" x=\"160\" y=\"36.0\" width=\"230.0\""), "{picture}");
        assert!(picture.contains("class=\"peer\" x=\"160\" y=\"62.0\" width=\"460.0\""), "{picture}");
        assert!(picture.contains("a &lt; b") && picture.contains("2.00 s"), "{picture}");
    }
}
