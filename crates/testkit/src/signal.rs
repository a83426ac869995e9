//! Signals to processes, by number.

use rustix::process::{Pid, Signal, kill_process};

/// Sends a signal. A process that is gone already is fine: that is what most callers want to reach.
pub(crate) fn send(process: u32, signal: Signal) {
    let pid = i32::try_from(process).ok().and_then(Pid::from_raw).expect("a process number");
    match kill_process(pid, signal) {
        Ok(()) | Err(rustix::io::Errno::SRCH) => {}
        Err(error) => panic!("could not signal process {process}: {error}"),
    }
}
