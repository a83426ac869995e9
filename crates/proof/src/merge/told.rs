//! A history in words.

use super::{Action, Merge, State};
use crate::check::Told;
use crate::script::SCRIPTS;
use crate::source::{Act, Visibility};

impl Told for Merge {
    fn begins(&self, state: &State) -> String {
        let scripts = state.source.sessions.iter().enumerate().map(|(at, session)| {
            format!("{}: {}", session_name(at as u8), SCRIPTS[usize::from(session.script)].name)
        });
        let copied = if state.large { "by key ranges" } else { "under one cut" };
        let order = match state.source.visibility {
            Visibility::AfterLog => "visible after the log",
            Visibility::WithLog => "visible with the log",
        };
        let unique = if state.target.table.unique { "; the target has its unique index" } else { "" };
        format!("{}; copied {copied}; {order}{unique}", scripts.collect::<Vec<_>>().join("; "))
    }

    fn step(&self, before: &State, action: &Action) -> String {
        match action {
            Action::Source(at, act) => {
                let session = session_name(*at);
                match act {
                    Act::Write => format!("{session} writes"),
                    Act::Prepare => format!("{session} is prepared"),
                    Act::Log => format!("{session}'s commit enters the log"),
                    Act::Show => format!("{session} becomes visible"),
                    Act::RollBack => format!("{session} rolls back"),
                }
            }
            Action::Prepare => "capture begins at the end of the log".into(),
            Action::TakeWave => "a wave takes its cut".into(),
            Action::Load(range) if before.memory.by_keys => {
                format!(
                    "the keys {} are loaded",
                    ["up to 1", "after 1 up to 2", "after 2"][usize::from(*range)]
                )
            }
            Action::Load(range) => format!("block {range} is loaded"),
            Action::GiveUpWave => "the table was rewritten, the wave is given up".into(),
            Action::Reset => "the torn table is emptied".into(),
            Action::Apply { transactions, folded } => {
                let how = if *folded { "folded" } else { "in order" };
                let from = before.target.progress;
                let names: Vec<String> = (from..from + transactions)
                    .map(|number| session_name(before.source.log[usize::from(number)]))
                    .collect();
                format!("{} applied, {how}", names.join(" and "))
            }
            Action::TakeFetch => format!("a snapshot is taken for row {}", wanted(before)),
            Action::Fetch => format!("row {} is fetched alone", wanted(before)),
            Action::Finish => "the schema is finished".into(),
            Action::Crash => "we crash and run again".into(),
            Action::LoseWave => "the wave is lost".into(),
            Action::RestartSource => "the source restarts".into(),
            Action::Record => "what was written is put on record".into(),
            Action::DropEarly => "a captured transaction is dropped".into(),
        }
    }

    fn ends(&self, state: &State) -> String {
        let refused = state.target.refused.map_or(String::new(), |refused| format!(", refused: {refused:?}"));
        let source: Vec<_> = crate::row::all(&state.source.rows).collect();
        format!("source {source:?}, target {:?}{refused}", state.target.table.rows)
    }
}

fn wanted(state: &State) -> u8 {
    state.memory.wanted.map_or(0, |wanted| wanted.key)
}

fn session_name(at: u8) -> String {
    char::from(b'A' + at).to_string()
}
