//! Apply: whole transactions decided, folded and written with their progress, as `engine::apply` does it.

use connector::{RowChange, Step};
use engine::fold::Fold;
use engine::merge::{Cuts, Decision};

use super::{Action, Fetch, Loaded, Merge, State, Unrecorded, Wanted, copy, put_row_cut};
use crate::row::{id, key, name};
use crate::source::{self, Seen};
use crate::target::Refused;

/// What became of the transactions that were taken in.
enum Assembled {
    Steps(Vec<Step>),
    Fetch(Wanted),
}

impl Merge {
    pub(super) fn follow_actions(&self, state: &State, actions: &mut Vec<Action>) {
        if state.memory.unrecorded.is_some() || !self.is_copied(&state.target) {
            return;
        }
        if let Some(wanted) = state.memory.wanted {
            self.fetch_actions(state, wanted, actions);
            return;
        }
        let waiting = state.source.log.len() as u8 - state.target.progress;
        for transactions in 1..=waiting {
            actions.extend([true, false].map(|folded| Action::Apply { transactions, folded }));
        }
        if !state.target.finished && (self.is_settled(state) || self.without("settled-first")) {
            actions.push(Action::Finish);
        }
    }

    fn fetch_actions(&self, state: &State, wanted: Wanted, actions: &mut Vec<Action>) {
        match wanted.under {
            None => {
                // The log may deliver a commit before any snapshot shows it: then the fetch waits.
                let transaction = state.source.transaction(wanted.number);
                if self.fetch_cut(state).cut().contains(&transaction) {
                    actions.push(Action::TakeFetch);
                }
            }
            Some(_) if state.source.locked() => {}
            Some(fetch) if fetch.file != state.source.file && !self.without("fetch-notices-rewrite") => {
                actions.push(Action::TakeFetch);
            }
            Some(_) => actions.push(Action::Fetch),
        }
    }

    /// `engine::apply::Applying::reached`, of `Goal::Settled`.
    fn is_settled(&self, state: &State) -> bool {
        let chunks = state.target.ledger.iter().flatten().map(|loaded| loaded.cut.end).max().unwrap_or(0);
        let rows = if self.without("row-cuts-settled") { 0 } else { state.memory.settled };
        state.target.progress >= chunks.max(rows)
    }

    pub(super) fn apply(&self, state: &mut State, transactions: u8, folded: bool) {
        let upto = state.target.progress + transactions;
        let steps = match self.assemble(state, upto, folded) {
            Ok(Assembled::Steps(steps)) => steps,
            Ok(Assembled::Fetch(wanted)) => {
                state.memory.wanted = Some(wanted);
                return;
            }
            Err(_) => {
                state.target.refused = Some(Refused::Ledger);
                return;
            }
        };
        let mut table = state.target.table.clone();
        match steps.iter().try_for_each(|step| table.write(step)) {
            Err(refused) => state.target.refused = Some(refused),
            Ok(()) => {
                state.target.table = table;
                if self.without("progress-with-data") {
                    state.memory.unrecorded = Some(Unrecorded::Progress(upto));
                } else {
                    state.target.progress = upto;
                }
            }
        }
    }

    /// `engine::apply::assemble`: each change decided under the cuts, then written in order or folded.
    fn assemble(&self, state: &State, upto: u8, folded: bool) -> Result<Assembled, engine::merge::Error> {
        let cuts = self.cuts(state)?;
        let tables = &self.catalog.tables;
        let mut fold = Fold::default();
        let mut steps = Vec::new();
        for number in state.target.progress..upto {
            let transaction = state.source.transaction(number);
            for write in &state.source.logged(number).writes {
                match cuts.decide(&transaction, write.change(), tables)? {
                    Decision::Skip => {}
                    Decision::Fetch { key, .. } => {
                        return Ok(Assembled::Fetch(Wanted { key: id(&key), number, under: None }));
                    }
                    Decision::Apply(change) if folded => fold.push(change, tables),
                    Decision::Apply(change) => push(&mut steps, change),
                    Decision::Bulk(bulk) if folded => fold.push_steps(bulk),
                    Decision::Bulk(bulk) => steps.extend(bulk),
                }
            }
        }
        steps.extend(fold.take());
        Ok(Assembled::Steps(steps))
    }

    /// From what is on record, then what was fetched since: `engine::feed::Feed::applying`.
    fn cuts(&self, state: &State) -> Result<Cuts, engine::merge::Error> {
        let cut = |loaded: &Loaded| match self.without("cut-not-position") {
            true => loaded.cut.by_position().cut(),
            false => loaded.cut.cut(),
        };
        let of_rows = || (1..).zip(&state.target.row_cuts).filter_map(|(id, cut)| Some((id, (*cut)?.cut())));
        let is_new = |id: u8| state.memory.fetched & (1 << id) != 0;
        let old = of_rows().filter(|(id, _)| !is_new(*id)).map(|(id, cut)| (name(), key(id), cut));
        let mut cuts = Cuts::new(&self.catalog, &copy::on_record(&state.target.ledger, cut), old)?;
        if state.target.finished {
            cuts.settle();
            return Ok(cuts);
        }
        for (id, cut) in of_rows().filter(|(id, _)| is_new(*id)) {
            cuts.fetched(0, key(id), cut);
        }
        Ok(cuts)
    }

    /// `connector::Reader::fetch`: the cut first, the row under it later.
    pub(super) fn take_fetch(&self, state: &mut State) {
        let cut = self.fetch_cut(state);
        let Some(wanted) = &mut state.memory.wanted else { return };
        let row = source::of(&state.source.rows, wanted.key);
        wanted.under = Some(Fetch { cut, row, file: state.source.file });
    }

    /// `engine::apply::Applying::fetch`: the row and its cut, in one transaction.
    pub(super) fn fetch(&self, state: &mut State) {
        let Some(Wanted { key: id, under: Some(Fetch { cut, row, file }), .. }) = state.memory.wanted.take()
        else {
            return;
        };
        state.target.table.put(id, row.filter(|_| file == state.source.file));
        if self.without("row-cut-with-row") {
            state.memory.unrecorded = Some(Unrecorded::RowCut(id, cut));
        } else {
            put_row_cut(state, id, cut);
        }
        state.memory.settled = state.memory.settled.max(state.source.log.len() as u8);
    }

    fn fetch_cut(&self, state: &State) -> Seen {
        let cut = state.source.seen();
        if self.without("row-cut-not-position") { cut.by_position() } else { cut }
    }

    /// `engine::feed::Feed::settle`: past all cuts, the second unique index is created.
    pub(super) fn finish(&self, state: &mut State) {
        state.target.finished = true;
        state.target.table.unique = true;
        if !state.target.table.holds() {
            state.target.refused = Some(Refused::Twice);
        }
    }
}

fn push(steps: &mut Vec<Step>, change: RowChange) {
    match steps.last_mut() {
        Some(Step::Ordered(changes)) => changes.push(change),
        _ => steps.push(Step::Ordered(vec![change])),
    }
}
