//! Every fault at every step of a migration, and what has to hold afterwards.
//!
//! A *cell* is one real migration of a real service under a client: a daemon waits at the step, the fault happens, the
//! daemon goes on, what broke is repaired as an operator would. Then it is asserted, whatever happened:
//!
//! * never did two copies run, and no acknowledged write is missing: the witness counts, nobody samples;
//! * exactly one copy runs, where the journals say; or, only where a copy was killed from outside, none does, and the
//!   site that had it says so;
//! * both histories tell an end of the migration, and why it failed if it did;
//! * at the site without the service nothing is left of it.
//!
//! Read in this order: [`steps`] (the rows), [`faults`] (the columns), [`sense`] (which cells make no sense and why,
//! and how the others may end), [`cell`] (one of them), [`stage`] (where they happen), [`run`] (many of them),
//! [`report`] (the tables).

pub mod cell;
pub mod faults;
pub(crate) mod memory;
pub mod report;
pub mod run;
pub mod sense;
pub mod stage;
pub mod steps;
mod verdict;

pub use cell::Cell;
pub use faults::Fault;
pub use run::{Options, bench};

/// The representative selection: every step and every fault at least once, those first that a real site meets first.
pub fn selection() -> Vec<Cell> {
    use crate::fault::Step;
    let all = Cell::all();
    let mut chosen: Vec<Cell> = Vec::new();
    // A diagonal: each fault at a step of its own as long as there are any, then each step that is left.
    for (number, fault) in Fault::ALL.into_iter().enumerate() {
        let order = (0..Step::ALL.len()).map(|next| Step::ALL[(number + next) % Step::ALL.len()]);
        let cells = order.filter_map(|step| all.iter().find(|cell| cell.step == step && cell.fault == fault));
        let mut cells = cells.copied();
        let fresh = cells.clone().find(|cell| chosen.iter().all(|known| known.step != cell.step));
        chosen.extend(fresh.or_else(|| cells.next()));
    }
    for step in Step::ALL {
        if chosen.iter().all(|cell| cell.step != step) {
            chosen.extend(all.iter().find(|cell| cell.step == step).copied());
        }
    }
    chosen
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fault::Step;

    #[test]
    fn the_selection_has_every_step_and_every_fault() {
        let chosen = selection();
        assert!(Step::ALL.iter().all(|step| chosen.iter().any(|cell| cell.step == *step)));
        assert!(Fault::ALL.iter().all(|fault| chosen.iter().any(|cell| cell.fault == *fault)));
        assert!(chosen.len() <= 40, "{}", chosen.len());
    }

    #[test]
    fn a_cell_is_found_by_its_name() {
        let all = Cell::all();
        assert!(all.iter().all(|cell| Cell::named(&cell.name()) == Some(*cell)));
        assert_eq!(Cell::named("reserve/criu-dump-killed"), None);
    }
}
