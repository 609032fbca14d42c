//! The ranks of this run: one, or those that a launcher of MPI started (`mpirun -n 4 lowrank train …`). Rank 0 alone prints and writes. The main
//! thread alone uses them.

#[cfg(feature = "mpi")]
use super::notes;
use lowrank::data::Sequence;
use lowrank::nn::DistilBert;
use lowrank::tensor::simd;
use lowrank::text::hex;
use lowrank::train::{OneRank, Ranks, all_agree, check_same, logits};
use lowrank::{Error, Result};
use sha2::{Digest, Sha256};
use std::cell::RefCell;
use std::rc::Rc;

thread_local! {
    static RANKS: RefCell<Rc<dyn Ranks>> = RefCell::new(Rc::new(OneRank));
}

/// The ranks of this run.
pub fn ranks() -> Rc<dyn Ranks> {
    RANKS.with_borrow(Rc::clone)
}

/// Whether there are several ranks.
pub fn are_several() -> bool {
    ranks().size() > 1
}

/// Whether this is rank 0, which prints and writes.
pub fn is_first() -> bool {
    ranks().rank() == 0
}

/// Finds the other ranks, if a launcher of MPI started this process. The other ranks than the first print nothing from now on.
pub fn start() {
    #[cfg(feature = "mpi")]
    if let Some(found) = mpi::start() {
        if found.rank() > 0 {
            notes::be_silent();
        }
        RANKS.set(found);
    }
}

/// Ends the run of all ranks with the result of this one. Waits for the others; if one failed, all get its error. `report` prints it before MPI
/// ends: the launcher stops rank 0 as soon as another rank has ended with an error.
pub fn end<T>(result: Result<T>, report: impl FnOnce(&Error)) -> Result<T> {
    let ranks = RANKS.replace(Rc::new(OneRank));
    let result = match result {
        Ok(done) if ranks.size() > 1 => ranks.gather(&[]).map(|_| done),
        result => result,
    };
    result.inspect_err(|e| {
        ranks.fail(e);
        report(e);
    })
}

/// Waits until every rank is here. So an error that one of them had before is known soon.
///
/// # Errors
/// If a rank failed.
pub fn meet() -> Result<()> {
    all_agree(&*ranks(), true).map(|_| ())
}

/// Checks that all ranks run the same program with the same instruction set.
///
/// # Errors
/// If something differs; the message names it with both values.
pub fn check_program() -> Result<()> {
    if !are_several() {
        return Ok(());
    }
    let io = |e| Error::io("the running program", e);
    let program = std::env::current_exe().and_then(std::fs::read).map_err(io)?;
    check(&[("program", hex(&Sha256::digest(program))), ("instruction set (--simd selects another)", simd::isa().to_string())])
}

/// Checks that `facts`, names and values, are the same on all ranks.
///
/// # Errors
/// As [`check_program`].
pub fn check(facts: &[(&str, String)]) -> Result<()> {
    if are_several() { check_same(&*ranks(), facts) } else { Ok(()) }
}

/// [`check`] for texts that `model` classifies. Its logits of the first text stand for all of the model: weights, method, type and device.
///
/// # Errors
/// As [`check`], and those of the model.
pub fn check_inference<'a, S: Into<Sequence<'a>> + Copy>(model: &DistilBert, texts: &[S]) -> Result<()> {
    let Some(&first) = texts.first().filter(|_| are_several()) else { return Ok(()) };
    let mut hash = Sha256::new();
    for &text in texts {
        let Sequence { ids, second } = text.into();
        [ids.len(), second].iter().for_each(|n| hash.update((*n as u64).to_le_bytes()));
        ids.iter().for_each(|id| hash.update(id.to_le_bytes()));
    }
    check(&[("texts", hex(&hash.finalize())), ("model with the logits", format!("{:?}", logits(model, &[first], 1)?.concat()))])
}

/// The texts of rank 0, on every rank.
///
/// # Errors
/// If a rank failed.
pub fn shared(texts: Vec<String>) -> Result<Vec<String>> {
    if !are_several() {
        return Ok(texts);
    }
    let json = |e| Error::invalid(format!("json: {e}"));
    let all = ranks().gather(&serde_json::to_vec(&texts).map_err(json)?)?;
    serde_json::from_slice(&all[0]).map_err(json)
}

#[cfg(feature = "mpi")]
mod mpi {
    use super::*;
    use lowrank::train::MpiRanks;
    use std::sync::mpsc::{RecvTimeoutError, channel};
    use std::time::Duration;

    /// Variables that launchers of MPI set.
    const LAUNCHED: [&str; 4] = ["OMPI_COMM_WORLD_SIZE", "PMIX_RANK", "PMI_RANK", "MV2_COMM_WORLD_RANK"];

    /// How long a rank that failed waits until the others listen.
    const PATIENCE: Duration = Duration::from_secs(4);

    /// The ranks of MPI, if a launcher started this process. A program without a launcher does not start MPI, which takes time.
    pub fn start() -> Option<Rc<dyn Ranks>> {
        let launched = LAUNCHED.iter().any(|name| std::env::var_os(name).is_some());
        launched.then(MpiRanks::start).flatten().map(|ranks| Rc::new(Impatient(ranks)) as Rc<dyn Ranks>)
    }

    /// Ranks that do not wait long to say that they failed. The others listen only when they have something to send; if that takes long, the process
    /// prints its error and ends, and MPI then ends the others.
    struct Impatient(MpiRanks);

    impl Ranks for Impatient {
        fn rank(&self) -> usize {
            self.0.rank()
        }

        fn size(&self) -> usize {
            self.0.size()
        }

        fn exchange(&self, parts: &[&[u8]]) -> Result<Vec<Vec<u8>>> {
            self.0.exchange(parts)
        }

        fn fail(&self, cause: &Error) {
            let (told, wait) = channel::<()>();
            let said = format!("lowrank: rank {}: {cause}", self.rank());
            std::thread::spawn(move || {
                if wait.recv_timeout(PATIENCE) == Err(RecvTimeoutError::Timeout) {
                    notes::write_always(format_args!("{said}"));
                    std::process::abort();
                }
            });
            self.0.fail(cause);
            drop(told);
        }
    }
}
