//! Plays histories and says which of them break an invariant.

use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use sim::history::History;
use sim::play::play;
use sim::shrink::shrink;

const HELP: &str = "\
Plays simulated migrations by seed and checks every step of each.

  sim [--histories N] [--minutes M] [--from SEED] [--threads T]   play many, from a fresh seed unless one is given
  sim --seed SEED                                                 play one, shrink it if it fails, and tell it
  sim mutants [--histories N] [--from SEED]                       show that every sabotage is caught
";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    // A panic of the engine is a finding, which is told with its history.
    std::panic::set_hook(Box::new(|_| {}));
    let outcome = match Wanted::parse(&args) {
        Ok(Wanted::Help) => {
            print!("{HELP}");
            Ok(true)
        }
        Ok(Wanted::One { seed }) => Ok(one(seed)),
        Ok(Wanted::Many(many)) => Ok(many.run()),
        Ok(Wanted::Mutants(many)) => mutants(&many),
        Err(error) => Err(error),
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{error}\n\n{HELP}");
            ExitCode::FAILURE
        }
    }
}

enum Wanted {
    Help,
    One { seed: u64 },
    Many(Many),
    Mutants(Many),
}

struct Many {
    from: u64,
    histories: u64,
    time: Option<Duration>,
    threads: u64,
}

impl Wanted {
    fn parse(args: &[String]) -> Result<Wanted, String> {
        let mut many = Many { from: fresh_seed(), histories: 100_000, time: None, threads: 2 };
        let mut args = args.iter().peekable();
        let mutants = args.next_if(|arg| *arg == "mutants").is_some();
        if mutants {
            (many.histories, many.from) = (HISTORIES_PER_MUTANT, 1);
        }
        while let Some(flag) = args.next() {
            if flag == "--help" || flag == "-h" {
                return Ok(Wanted::Help);
            }
            let value = args.next().ok_or_else(|| format!("{flag} needs a value"))?;
            let number: u64 = value.parse().map_err(|_| format!("{flag} {value}: not a number"))?;
            match flag.as_str() {
                "--seed" => return Ok(Wanted::One { seed: number }),
                "--histories" => many.histories = number,
                "--minutes" => {
                    many.time = Some(Duration::from_secs(60 * number));
                    many.histories = u64::MAX;
                }
                "--from" => many.from = number,
                "--threads" => many.threads = number.max(1),
                _ => return Err(format!("there is no option {flag}")),
            }
        }
        Ok(if mutants { Wanted::Mutants(many) } else { Wanted::Many(many) })
    }
}

/// A sabotage that needs more is caught by luck.
const HISTORIES_PER_MUTANT: u64 = 100_000;

#[cfg(not(feature = "mutants"))]
fn mutants(_many: &Many) -> Result<bool, String> {
    Err("the sabotages are not compiled in: cargo xtask mutants".to_owned())
}

#[cfg(feature = "mutants")]
fn mutants(many: &Many) -> Result<bool, String> {
    let mut survived = 0;
    println!("{:<28} {:>9}  {:>8}  {:<24} what is done wrong", "sabotage", "histories", "seed", "caught by");
    for mutant in model::mutant::ALL {
        match sim::mutants::hunt(*mutant, many.from, many.histories, many.threads) {
            Some(caught) => println!(
                "{:<28} {:>9}  {:>8}  {:<24} {}",
                mutant.name, caught.histories, caught.seed, caught.invariant, mutant.does
            ),
            None => {
                survived += 1;
                println!("{:<28} {:>9}  {:>8}  {:<24} {}", mutant.name, "-", "-", "SURVIVED", mutant.does);
            }
        }
    }
    println!("{} of {} caught", model::mutant::ALL.len() - survived, model::mutant::ALL.len());
    Ok(survived == 0)
}

fn fresh_seed() -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    now.map_or(1, |since| since.as_nanos() as u64 % 1_000_000_000_000)
}

fn one(seed: u64) -> bool {
    let history = History::new(seed);
    if play(&history, false).violation.is_none() {
        let played = play(&history, true);
        println!("{}", played.story.join("\n"));
        println!("\nseed {seed} holds: {} moments, refused: {}", played.moments, played.refused);
        return true;
    }
    tell(history);
    false
}

fn tell(history: History) {
    let seed = history.seed;
    let (steps, faults) = (history.steps.len(), history.faults.len());
    let small = shrink(history);
    let played = play(&small, true);
    println!(
        "\nshrunk from {steps} steps and {faults} faults to {} and {}",
        small.steps.len(),
        small.faults.len()
    );
    println!("tables {:?}\n{:?}, {} rows each\n", small.shapes, small.tuning, small.rows);
    println!("{}", played.story.join("\n"));
    if let Some(violation) = played.violation {
        println!(
            "\nseed {seed} breaks {} at moment {}: {}",
            violation.invariant, violation.moment, violation.what
        );
    }
    println!("replay: cargo xtask sim --seed {seed}");
}

impl Many {
    fn run(&self) -> bool {
        println!("from seed {}", self.from);
        let begun = Instant::now();
        let (next, moments, refused, failed) =
            (AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(u64::MAX));
        std::thread::scope(|scope| {
            for _ in 0..self.threads {
                scope.spawn(|| {
                    while failed.load(Ordering::Relaxed) == u64::MAX
                        && self.time.is_none_or(|time| begun.elapsed() < time)
                    {
                        let at = next.fetch_add(1, Ordering::Relaxed);
                        if at >= self.histories {
                            return;
                        }
                        let played = play(&History::new(self.from + at), false);
                        moments.fetch_add(played.moments, Ordering::Relaxed);
                        refused.fetch_add(u64::from(played.refused), Ordering::Relaxed);
                        if played.violation.is_some() {
                            failed.fetch_min(self.from + at, Ordering::Relaxed);
                        }
                    }
                });
            }
        });
        let played = next.load(Ordering::Relaxed).min(self.histories);
        let seconds = begun.elapsed().as_secs_f64();
        println!(
            "{played} histories in {seconds:.1} s, {:.0} a second; {} moments each on average; {} ended with a refusal",
            played as f64 / seconds,
            moments.load(Ordering::Relaxed) / played.max(1),
            refused.load(Ordering::Relaxed),
        );
        match failed.load(Ordering::Relaxed) {
            u64::MAX => {
                println!("0 violations");
                true
            }
            seed => {
                tell(History::new(seed));
                false
            }
        }
    }
}
