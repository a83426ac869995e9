//! The command line.

use std::path::PathBuf;

#[derive(Debug)]
pub(crate) struct Options {
    names: Vec<String>,
    pub(crate) crossfade: PathBuf,
    pub(crate) rounds: usize,
    pub(crate) scale: f64,
    /// Where the page and what it is made of lie.
    pub(crate) out: PathBuf,
}

impl Options {
    pub(crate) fn parse(args: impl Iterator<Item = String>, known: &[&str]) -> Result<Options, String> {
        let usage = format!(
            "usage: bench [NAME…] --crossfade PATH [--rounds N] [--scale F] [--out FOLDER]\nnames: {}",
            known.join(" ")
        );
        Options::read(args, known).map_err(|reason| format!("{reason}\n{usage}"))
    }

    fn read(mut args: impl Iterator<Item = String>, known: &[&str]) -> Result<Options, String> {
        let (mut names, mut crossfade, mut rounds, mut scale, mut out) = (Vec::new(), None, 5, 1.0_f64, None);
        while let Some(arg) = args.next() {
            let mut value = || args.next().ok_or_else(|| format!("{arg} needs a value"));
            match arg.as_str() {
                "--crossfade" => crossfade = Some(PathBuf::from(value()?)),
                "--rounds" => rounds = number(&arg, &value()?)?,
                "--scale" => scale = number(&arg, &value()?)?,
                "--out" => out = Some(PathBuf::from(value()?)),
                name if known.contains(&name) => names.push(arg),
                other => return Err(format!("there is no benchmark {other:?}")),
            }
        }
        if rounds == 0 || scale.is_nan() || scale <= 0.0 {
            return Err("--rounds and --scale must be above 0".into());
        }
        // A trial must not take the place of real figures.
        let folder = if scale == 1.0 { "bench" } else { "target/bench-trial" };
        let crossfade = crossfade.ok_or("--crossfade is missing")?;
        // The program runs in another folder.
        let crossfade = std::path::absolute(&crossfade).map_err(|error| format!("--crossfade: {error}"))?;
        Ok(Options { names, crossfade, rounds, scale, out: out.unwrap_or_else(|| folder.into()) })
    }

    pub(crate) fn wants(&self, name: &str) -> bool {
        self.names.is_empty() || self.names.iter().any(|wanted| wanted == name)
    }
}

fn number<T: std::str::FromStr>(flag: &str, text: &str) -> Result<T, String> {
    text.parse().map_err(|_| format!("{flag} needs a number, not {text:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Options, String> {
        Options::parse(line.split_ascii_whitespace().map(str::to_owned), &["apply", "strict"])
    }

    #[test]
    fn without_a_name_all_are_wanted() {
        let some = parse("strict --crossfade c").expect("a good line");
        assert!(some.wants("strict") && !some.wants("apply"));
        assert!(parse("--crossfade c").expect("a good line").wants("apply"));
    }

    #[test]
    fn a_trial_stays_out_of_the_results() {
        assert_eq!(parse("--crossfade c").expect("a good line").out, PathBuf::from("bench"));
        let trial = parse("--crossfade c --scale 0.02").expect("a good line");
        assert_eq!(trial.out, PathBuf::from("target/bench-trial"));
    }

    #[test]
    fn what_it_does_not_know_it_refuses() {
        for line in [
            "copy --crossfade c",
            "apply",
            "--crossfade c --rounds 0",
            "--crossfade c --scale nan",
            "--rounds",
        ] {
            assert!(parse(line).is_err(), "{line}");
        }
    }
}
