//! How fast the copy may run beside the application's own work on the source: the law, without clock or I/O.
//!
//! The copy is the first work to be shed. While nobody else works on the source there is no limit. As soon as somebody does,
//! the copy keeps to a share of its full speed, which is learned from how promptly the source answers a trivial question:
//! each slow answer takes away a part of it, and each prompt one adds a little, the more of them in a row the more. It never
//! falls below a floor, so that the copy always comes to its end.
//!
//! Others at work are a reason to retreat by themselves, before any answer is slow: a probe that sleeps nearly all the time is
//! served first by the scheduler, and is answered promptly when transactions of many statements already wait at each of them.

use std::time::Duration;

use connector::Load;

/// The share before anything is learned.
const BEGIN: f64 = 0.05;
/// Even the busiest source is copied in finite time.
const FLOOR: f64 = 0.03;
/// The part that a slow answer takes away: five in a row leave a quarter.
const CUT: f64 = 0.25;
/// Added by a prompt answer, times the prompt ones in a row: after n of them n²/2 of it. So it takes 283 of them, 14 s, from
/// the floor to full speed on a source that is not hurt, while one slow answer a second leaves the share at the floor: the
/// slowest of a hundred transactions is what an application is judged by.
const STEP: f64 = 0.000_025;
/// From one probe to the next while the source is ours: one that becomes busy waits for the copy's retreat for so long.
const WATCH: Duration = Duration::from_millis(20);
/// From one probe to the next under a limit. What is learned from each depends on it.
const EVERY: Duration = Duration::from_millis(50);
/// Others who worked longer than this have to be quiet for as long before the source is ours again.
const QUIET: Duration = Duration::from_secs(1);
/// What the best latency may be exceeded by, beyond its half: a core that is free takes a process up within a few
/// microseconds, one that is not after a scheduler's slice or more, which is some milliseconds.
const NOTICEABLE: Duration = Duration::from_micros(500);
/// The best latency is that of the last one to two such spans: a network may become slower for good.
const SPAN: Duration = Duration::from_secs(60);
/// Full speed, until it has been seen: what COPY yields on one core.
const FULL_BYTES_PER_SECOND: f64 = 100e6;

/// Whatever full speed was seen to be: small tables, or a wave that is waited for, show little or nothing of it.
const FLOOR_BYTES_PER_SECOND: f64 = 1e6;

pub(crate) struct Throttle {
    /// Of full speed, while others work: 1 is no limit.
    share: f64,
    /// Prompt answers in a row.
    prompt: u32,
    /// The fastest second without a limit, in bytes a second.
    full: Option<f64>,
    second: Second,
    best: Best,
    /// Smoothed, to be shown. `None` before the first answer.
    latency: Option<Duration>,
    /// When others began to work and when they were seen at it last; `None` while the source is ours.
    others: Option<(Duration, Duration)>,
}

/// The second that is being measured.
#[derive(Clone, Copy)]
struct Second {
    began: Duration,
    bytes: u64,
    open: bool,
}

impl Throttle {
    pub(crate) fn new() -> Throttle {
        Throttle {
            share: BEGIN,
            prompt: 0,
            full: None,
            second: Second { began: Duration::ZERO, bytes: 0, open: false },
            best: Best::default(),
            latency: None,
            others: None,
        }
    }

    /// The share to which the copy is held back, if it is.
    fn held(&self) -> Option<f64> {
        let considerate = self.others.is_some() || self.latency.is_none();
        (considerate && self.share < 1.0).then_some(self.share)
    }

    /// Bytes a second; never none.
    pub(crate) fn limit(&self) -> Option<u64> {
        let full = self.full.unwrap_or(FULL_BYTES_PER_SECOND);
        self.held().map(|share| (share * full).max(FLOOR_BYTES_PER_SECOND) as u64)
    }

    /// Until the next probe. While others work every one is learned from, also at full speed.
    pub(crate) fn pause(&self) -> Duration {
        if self.limit().is_none() && self.others.is_none() { WATCH } else { EVERY }
    }

    /// What a probe found at this time, since the copy began, and how many bytes had been copied by then.
    pub(crate) fn sample(&mut self, at: Duration, load: &Load, bytes: u64) {
        self.measure(at, bytes);
        self.best.note(at, load.latency);
        self.latency = Some(self.latency.map_or(load.latency, |before| (before * 9 + load.latency) / 10));
        let slow = load.latency > self.best.latency() * 3 / 2 + NOTICEABLE;
        // Where the source does not tell, others are blamed for what is slow.
        if load.others.map_or(slow, |others| others > 0) {
            self.others = Some((self.others.map_or(at, |(since, _)| since), at));
            self.learn(slow);
        } else if let Some((since, seen)) = self.others
            && at - seen >= (seen - since).min(QUIET)
        {
            self.others = None;
        }
        self.second.open &= self.held().is_none();
    }

    fn learn(&mut self, slow: bool) {
        if slow {
            self.prompt = 0;
            self.share = (self.share * (1.0 - CUT)).max(FLOOR);
        } else {
            self.prompt += 1;
            self.share = (self.share + STEP * f64::from(self.prompt)).min(1.0);
        }
    }

    fn measure(&mut self, at: Duration, bytes: u64) {
        let took = at.saturating_sub(self.second.began);
        if self.second.open && took < Duration::from_secs(1) {
            return;
        }
        if self.second.open {
            let rate = bytes.saturating_sub(self.second.bytes) as f64 / took.as_secs_f64();
            self.full = Some(self.full.unwrap_or(0.0).max(rate));
        }
        self.second = Second { began: at, bytes, open: self.held().is_none() };
    }

    /// Why the copy is held back, in words; `None` while it is not.
    pub(crate) fn reason(&self) -> Option<String> {
        let percent = (self.held()? * 100.0).ceil();
        let ms = |latency: Duration| latency.as_secs_f64() * 1000.0;
        Some(match self.latency {
            None => format!("how busy the source is is not known yet; copying at {percent} %"),
            Some(latency) => format!(
                "others work on the source, which answers in {:.1} ms, in {:.1} ms at its best; copying at {percent} %",
                ms(latency),
                ms(self.best.latency()),
            ),
        })
    }
}

/// The lowest latency of this span and the one before.
#[derive(Default)]
struct Best {
    began: Duration,
    now: Option<Duration>,
    before: Option<Duration>,
}

impl Best {
    fn note(&mut self, at: Duration, latency: Duration) {
        if at.saturating_sub(self.began) >= SPAN {
            (self.before, self.now, self.began) = (self.now, None, at);
        }
        self.now = Some(self.now.map_or(latency, |now| now.min(latency)));
    }

    fn latency(&self) -> Duration {
        self.now.into_iter().chain(self.before).min().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVERY_MS: u64 = 50;

    /// Plays probes, one every 50 ms: how many, who else is there, and what they took in microseconds.
    struct Played {
        throttle: Throttle,
        at: Duration,
        bytes: u64,
    }

    impl Played {
        fn new() -> Played {
            Played { throttle: Throttle::new(), at: Duration::ZERO, bytes: 0 }
        }

        fn probe(&mut self, others: Option<u32>, micros: u64) -> f64 {
            self.at += Duration::from_millis(EVERY_MS);
            let load = Load { latency: Duration::from_micros(micros), others };
            self.throttle.sample(self.at, &load, self.bytes);
            self.throttle.held().unwrap_or(1.0)
        }

        fn probes(&mut self, times: u32, others: Option<u32>, micros: u64) -> f64 {
            (0..times).map(|_| self.probe(others, micros)).last().unwrap()
        }
    }

    const FINE: u64 = 300;
    const SLOW: u64 = 4000;

    #[test]
    fn without_a_word_from_the_source_it_begins_carefully() {
        let throttle = Throttle::new();
        assert_eq!(throttle.limit(), Some(5_000_000));
        let reason = throttle.reason().unwrap();
        assert_eq!(reason, "how busy the source is is not known yet; copying at 5 %");
    }

    #[test]
    fn seconds_in_which_nothing_was_copied_leave_a_limit_that_lets_rows_pass() {
        let mut played = Played::new();
        played.probes(100, Some(0), FINE);
        played.probe(Some(1), FINE);
        assert_eq!(played.throttle.limit(), Some(1_000_000));
    }

    #[test]
    fn alone_it_is_open_from_the_first_answer_on_however_slow() {
        let mut played = Played::new();
        for micros in [FINE, SLOW, FINE, 80_000] {
            assert!(played.probes(20, Some(0), micros) >= 1.0);
            assert_eq!((played.throttle.limit(), played.throttle.reason()), (None, None));
        }
    }

    /// What is asked, one after the other: probes, others, latency, and the share of full speed after that.
    #[test]
    fn it_falls_at_once_and_recovers_slowly() {
        let mut played = Played::new();
        for (probes, others, micros, from, upto) in [
            (100, Some(0), FINE, 1.0, 1.0),
            (1, Some(4), FINE, BEGIN, 0.051),
            (3, Some(4), SLOW, FLOOR, FLOOR),
            (20, Some(4), FINE, 0.03, 0.04),
            (80, Some(4), FINE, 0.13, 0.17),
            (1, Some(4), SLOW, 0.10, 0.12),
            (300, Some(4), FINE, 1.0, 1.0),
            (1, Some(4), SLOW, 0.75, 0.75),
            (20, Some(4), SLOW, FLOOR, FLOOR),
        ] {
            let share = played.probes(probes, others, micros);
            assert!((from..=upto).contains(&share), "{probes} probes, {others:?}, {micros} us: {share}");
        }
        let reason = played.throttle.reason().unwrap();
        assert_eq!(
            reason,
            "others work on the source, which answers in 3.6 ms, in 0.3 ms at its best; copying at 3 %"
        );
    }

    #[test]
    fn it_opens_once_the_others_have_been_quiet_and_remembers_what_they_bore() {
        let mut played = Played::new();
        played.probes(400, Some(3), FINE);
        played.probe(Some(3), SLOW);
        assert!(played.probes(19, Some(0), FINE) < 1.0, "they may only have paused");
        assert!(played.probe(Some(0), FINE) >= 1.0);
        assert!((0.7..0.8).contains(&played.probe(Some(3), FINE)), "and not the beginner's share again");
    }

    #[test]
    fn a_lone_query_holds_it_back_for_a_moment_only() {
        let mut played = Played::new();
        played.probe(Some(0), FINE);
        assert!(played.probe(Some(1), FINE) < 0.1);
        assert!(played.probe(Some(0), FINE) >= 1.0);
    }

    #[test]
    fn where_the_source_does_not_tell_slow_answers_decide() {
        let mut played = Played::new();
        assert!(played.probes(100, None, FINE) >= 1.0);
        assert!(played.probes(2, None, SLOW) < BEGIN);
        assert!(played.probes(20, None, FINE) >= 1.0);
    }

    /// One answer in so many is slow, for minutes.
    #[test]
    fn the_share_follows_how_many_answers_are_slow() {
        for (one_in, from, upto) in
            [(400, 0.9, 1.0), (100, 0.3, 0.6), (50, 0.08, 0.15), (20, FLOOR, 0.04), (2, FLOOR, 0.031)]
        {
            let mut played = Played::new();
            let shares: Vec<f64> =
                (1..8000).map(|n| played.probe(Some(4), if n % one_in == 0 { SLOW } else { FINE })).collect();
            let late = &shares[4000..];
            let mean = late.iter().sum::<f64>() / late.len() as f64;
            assert!((from..=upto).contains(&mean), "one in {one_in}: {mean}");
        }
    }

    #[test]
    fn full_speed_is_the_fastest_second_without_a_limit() {
        let mut played = Played::new();
        for bytes_per_probe in [2_000_000, 500_000] {
            for _ in 0..100 {
                played.bytes += bytes_per_probe;
                played.probe(Some(0), FINE);
            }
        }
        played.probe(Some(2), FINE);
        let limit = played.throttle.limit().unwrap();
        assert!((1_900_000..2_100_000).contains(&limit), "a twentieth of 40 MB/s: {limit}");
    }

    #[test]
    fn a_network_that_became_slower_is_got_used_to() {
        let mut played = Played::new();
        played.probes(200, Some(2), FINE);
        let minute = 1000 * 60 / EVERY_MS as u32;
        assert!(played.probes(minute, Some(2), 20_000) <= FLOOR);
        assert!(played.probes(2 * minute, Some(2), 20_000) >= 1.0);
    }
}
