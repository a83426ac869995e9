//! A history in words.

use super::{Action, Apply, State, Step, durable};
use crate::check::Told;

impl Told for Apply {
    fn begins(&self, _: &State) -> String {
        format!("the source commits {} transactions of two changes each", self.transactions)
    }

    fn step(&self, before: &State, action: &Action) -> String {
        match action {
            Action::SourceCommits => {
                format!("the source commits transaction {}", before.source.committed + 1)
            }
            Action::Claim => format!("owner {} claims", before.target.epoch + 1),
            Action::Owner(at, step) => {
                let owner = &before.owners[usize::from(*at)];
                let what = match step {
                    Step::ReadJournal => "reads the journal".to_owned(),
                    Step::CreateSegment => "creates its segment".to_owned(),
                    Step::Recover => "recovers the journal and writes its head".to_owned(),
                    Step::Append => "appends a change".to_owned(),
                    Step::Sync => "syncs its segment".to_owned(),
                    Step::Check => "looks for newer owners".to_owned(),
                    Step::Publish => "shows what is durable".to_owned(),
                    Step::Acknowledge => "acknowledges to the source".to_owned(),
                    Step::LoseSource => "loses the source and connects again".to_owned(),
                    Step::OpenLink => "connects to the target".to_owned(),
                    Step::Send { transactions } => format!("writes {transactions} and sends COMMIT"),
                    Step::SendHalf => "writes one change and sends COMMIT".to_owned(),
                    Step::SendRecord => "records the progress and sends COMMIT".to_owned(),
                    Step::Die => "dies".to_owned(),
                };
                format!("owner {} {what}", owner.epoch)
            }
            Action::CommitLands { answered: true } => "the commit lands".to_owned(),
            Action::CommitLands { answered: false } => "the commit lands, its answer is lost".to_owned(),
            Action::CommitFails => "the commit is undone, no answer comes".to_owned(),
            Action::PowerCut { kept } => format!("the power fails; {kept} changes survive without fsync"),
        }
    }

    fn ends(&self, state: &State) -> String {
        format!(
            "freed {}, durable {}, progress {}, changes on the target {:?}",
            state.source.freed,
            durable(state).len(),
            state.target.progress,
            state.target.changes
        )
    }
}
