//! What a benchmark found: kept as JSON, shown as a page and as a picture.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::machine::Machine;

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Section {
    pub(crate) name: String,
    /// What is measured, from when to when, for people.
    pub(crate) what: String,
    /// As they were run; `$SOURCE`, `$TARGET` and `$DIR` stand for URLs and a folder.
    pub(crate) commands: Vec<String>,
    pub(crate) comparisons: Vec<Comparison>,
    pub(crate) figures: Vec<Figure>,
}

/// When and where a section was measured.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Taken {
    pub(crate) rounds: usize,
    pub(crate) scale: f64,
    pub(crate) machine: Machine,
}

/// One thing that crossfade and others do, or that is done beside crossfade and without it.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Comparison {
    pub(crate) title: String,
    pub(crate) unit: Unit,
    pub(crate) ratio: Ratio,
    pub(crate) ours: Samples,
    pub(crate) peers: Vec<Samples>,
    /// What the ratio with each peer must reach.
    pub(crate) bar: Option<f64>,
    /// What keeps us, for the reader of a bar that is missed.
    pub(crate) why: String,
}

/// Something of ours alone.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Figure {
    pub(crate) unit: Unit,
    pub(crate) samples: Samples,
    /// No value may be above it.
    pub(crate) limit: Option<f64>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Samples {
    pub(crate) name: String,
    /// One a round.
    pub(crate) values: Vec<f64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Unit {
    #[serde(rename = "s")]
    Seconds,
    #[serde(rename = "ms")]
    Milliseconds,
    #[serde(rename = "MiB")]
    Mebibytes,
    #[serde(rename = "")]
    Count,
}

/// Which way two medians are divided.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Ratio {
    /// The peer's time by ours: above 1 we are faster, and the bar is the least.
    Speed,
    /// Ours by the peer's: above 1 it costs something, and the bar is the most.
    Cost,
}

/// How a ratio with a peer stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Holds,
    Missed,
    /// Nothing is asked, and the peer is faster.
    Behind,
    /// Nothing is asked, and there is nothing to admit.
    Free,
}

/// The program must fit into this, whatever it does.
const MEMORY_MIB_MAX: f64 = 256.0;

impl Section {
    pub(crate) fn holds(&self) -> bool {
        let ratios = self
            .comparisons
            .iter()
            .all(|one| one.peers.iter().all(|peer| one.verdict(peer) != Verdict::Missed));
        ratios && self.figures.iter().all(Figure::holds)
    }
}

impl Comparison {
    /// Of seconds, where less is better and the ratio is the speed.
    pub(crate) fn time(
        title: impl Into<String>,
        ours: Samples,
        peers: impl Into<Vec<Samples>>,
    ) -> Comparison {
        let (title, peers, why) = (title.into(), peers.into(), String::new());
        Comparison { title, unit: Unit::Seconds, ratio: Ratio::Speed, ours, peers, bar: None, why }
    }

    /// `why` is told when the bar is missed.
    pub(crate) fn bar(self, bar: f64, why: &str) -> Comparison {
        Comparison { bar: Some(bar), ..self.because(why) }
    }

    /// Told where a peer is faster.
    pub(crate) fn because(self, why: &str) -> Comparison {
        Comparison { why: why.into(), ..self }
    }

    pub(crate) fn ratio_with(&self, peer: &Samples) -> f64 {
        match self.ratio {
            Ratio::Speed => peer.median() / self.ours.median(),
            Ratio::Cost => self.ours.median() / peer.median(),
        }
    }

    pub(crate) fn verdict(&self, peer: &Samples) -> Verdict {
        let ratio = self.ratio_with(peer);
        let reaches = |bar: f64| match self.ratio {
            Ratio::Speed => ratio >= bar,
            Ratio::Cost => ratio <= bar,
        };
        match self.bar {
            Some(bar) if reaches(bar) => Verdict::Holds,
            Some(_) => Verdict::Missed,
            // That it costs something to do more is no news.
            None if reaches(1.0) || self.ratio == Ratio::Cost => Verdict::Free,
            None => Verdict::Behind,
        }
    }
}

impl Figure {
    pub(crate) fn new(unit: Unit, samples: Samples) -> Figure {
        Figure { unit, samples, limit: None }
    }

    /// Peak resident memory, which must stay within what is promised.
    pub(crate) fn memory(samples: Samples) -> Figure {
        Figure { limit: Some(MEMORY_MIB_MAX), ..Figure::new(Unit::Mebibytes, samples) }
    }

    pub(crate) fn holds(&self) -> bool {
        self.limit.is_none_or(|limit| self.samples.max() <= limit)
    }
}

impl Samples {
    pub(crate) fn of(name: impl Into<String>) -> Samples {
        Samples { name: name.into(), values: Vec::new() }
    }

    /// Thousandths are below what any of these clocks tells.
    pub(crate) fn push(&mut self, value: f64) {
        self.values.push((value * 1000.0).round() / 1000.0);
    }

    pub(crate) fn seconds(&mut self, took: Duration) {
        eprintln!("  {}: {:.2} s", self.name, took.as_secs_f64());
        self.push(took.as_secs_f64());
    }

    pub(crate) fn without_first(mut self) -> Samples {
        self.values.drain(..1);
        self
    }

    pub(crate) fn median(&self) -> f64 {
        let mut sorted = self.values.clone();
        sorted.sort_unstable_by(f64::total_cmp);
        sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
    }

    pub(crate) fn min(&self) -> f64 {
        self.values.iter().copied().fold(f64::INFINITY, f64::min)
    }

    pub(crate) fn max(&self) -> f64 {
        self.values.iter().copied().fold(0.0, f64::max)
    }
}

impl Unit {
    /// A value as people read it, with its unit.
    pub(crate) fn show(self, value: f64) -> String {
        match self {
            Unit::Seconds => format!("{value:.2} s"),
            Unit::Milliseconds => format!("{value:.2} ms"),
            Unit::Mebibytes => format!("{value:.0} MiB"),
            Unit::Count => format!("{value:.0}"),
        }
    }
}

/// A number as people read it: 5,000,000.
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut shown = String::new();
    for (left, digit) in (0..digits.len()).rev().zip(digits.chars()) {
        shown.push(digit);
        if left > 0 && left % 3 == 0 {
            shown.push(',');
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples(values: &[f64]) -> Samples {
        Samples { name: "one".into(), values: values.to_vec() }
    }

    #[test]
    fn verdicts() {
        use {Ratio as R, Verdict as V};
        // Ours, the peer's, which way, the bar.
        for (ours, peer, ratio, bar, verdict) in [
            (1.0, 1.5, R::Speed, Some(1.5), V::Holds),
            (1.0, 1.49, R::Speed, Some(1.5), V::Missed),
            (1.0, 0.96, R::Speed, Some(0.95), V::Holds),
            (1.3, 1.0, R::Cost, Some(1.3), V::Holds),
            (1.4, 1.0, R::Cost, Some(1.3), V::Missed),
            (1.0, 1.1, R::Speed, None, V::Free),
            (1.1, 1.0, R::Speed, None, V::Behind),
            (1.1, 1.0, R::Cost, None, V::Free),
        ] {
            let time = Comparison::time("", samples(&[ours]), [samples(&[peer])]);
            let one = Comparison { ratio, bar, ..time };
            assert_eq!(one.verdict(&one.peers[0]), verdict, "{ours} against {peer}, {ratio:?} {bar:?}");
        }
    }

    #[test]
    fn one_slow_round_moves_no_median_and_one_large_one_breaks_the_limit() {
        assert!((samples(&[2.0, 9.0, 1.0]).median() - 2.0).abs() < f64::EPSILON);
        assert!(!Figure::memory(samples(&[10.0, 300.0, 10.0])).holds());
    }

    #[test]
    fn nothing_measured_reaches_no_bar() {
        let none = Comparison::time("", samples(&[]), [samples(&[1.0])]).bar(1.0, "");
        assert_eq!(none.verdict(&none.peers[0]), Verdict::Missed);
    }

    #[test]
    fn numbers_as_people_read_them() {
        assert_eq!([0, 999, 1_000, 12_345_678].map(grouped), ["0", "999", "1,000", "12,345,678"]);
    }
}
