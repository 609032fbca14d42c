//! What waits for the engine.

use super::Served;
use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::oneshot;

/// Most tokens that wait: 4 MB of ids.
const TOKENS: usize = 1 << 20;

/// Texts of one request, for one model.
pub struct Texts {
    /// Index of the model.
    pub model: usize,
    pub ids: Vec<Vec<u32>>,
    /// Gets the logits `[N][C]`, or what went wrong.
    pub answer: oneshot::Sender<Result<Vec<Vec<f64>>, String>>,
}

impl Texts {
    fn tokens(&self) -> usize {
        self.ids.iter().map(Vec::len).sum()
    }
}

/// Longer work. It often calls its second argument. Each call answers the texts that wait, and returns whether to go on.
pub type Task = Box<dyn FnOnce(&[Served], &mut dyn FnMut() -> bool) + Send>;

/// What the engine does next.
pub enum Work {
    Texts(Vec<Texts>),
    Task(Task),
    /// The queue is empty.
    Nothing,
    /// The queue is empty, and nothing more will come.
    End,
}

/// Requests in the order in which they came. Texts go before tasks.
pub struct Queue {
    waiting: Mutex<Waiting>,
    ready: Condvar,
    most: usize,
}

#[derive(Default)]
struct Waiting {
    texts: VecDeque<Texts>,
    tasks: VecDeque<Task>,
    tokens: usize,
    closed: bool,
}

impl Queue {
    /// For at most `most` requests.
    pub fn new(most: usize) -> Queue {
        Queue { waiting: Mutex::default(), ready: Condvar::new(), most }
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds texts; false if the queue is full.
    pub fn push_texts(&self, texts: Texts) -> bool {
        let (mut waiting, tokens) = (self.lock(), texts.tokens());
        let room = waiting.has_room(self.most) && waiting.tokens + tokens <= TOKENS;
        if room {
            waiting.tokens += tokens;
            waiting.texts.push_back(texts);
            self.ready.notify_one();
        }
        room
    }

    /// Adds a task; false if the queue is full.
    pub fn push_task(&self, task: Task) -> bool {
        let mut waiting = self.lock();
        let room = waiting.has_room(self.most);
        if room {
            waiting.tasks.push_back(task);
            self.ready.notify_one();
        }
        room
    }

    /// Nothing more will come.
    pub fn close(&self) {
        self.lock().closed = true;
        self.ready.notify_all();
    }

    /// Number of waiting requests, and of their tokens.
    pub fn waiting(&self) -> (usize, usize) {
        let waiting = self.lock();
        (waiting.requests(), waiting.tokens)
    }

    /// What is next; waits for it at most `wait`. Texts are those of [`Queue::texts`].
    pub fn next(&self, wait: Duration, tokens: usize) -> Work {
        let waiting = self.lock();
        let idle = |waiting: &mut Waiting| waiting.requests() == 0 && !waiting.closed;
        let (mut waiting, _) = self.ready.wait_timeout_while(waiting, wait, idle).unwrap_or_else(PoisonError::into_inner);
        if !waiting.texts.is_empty() {
            return Work::Texts(waiting.take(tokens));
        }
        match waiting.tasks.pop_front() {
            Some(task) => Work::Task(task),
            None if waiting.closed => Work::End,
            None => Work::Nothing,
        }
    }

    /// The texts that are computed together: the oldest, and those after it for the same model, until there are `tokens` tokens.
    pub fn texts(&self, tokens: usize) -> Vec<Texts> {
        self.lock().take(tokens)
    }
}

impl Waiting {
    /// Number of requests.
    fn requests(&self) -> usize {
        self.texts.len() + self.tasks.len()
    }

    /// Whether one more request may wait, where `most` may.
    fn has_room(&self, most: usize) -> bool {
        self.requests() < most && !self.closed
    }

    fn take(&mut self, most: usize) -> Vec<Texts> {
        let (mut taken, mut tokens): (Vec<Texts>, usize) = (Vec::new(), 0);
        let mut i = 0;
        while let Some(next) = self.texts.get(i) {
            if taken.first().is_some_and(|first| first.model != next.model) {
                i += 1;
                continue;
            }
            if !taken.is_empty() && tokens + next.tokens() > most {
                break;
            }
            tokens += next.tokens();
            taken.extend(self.texts.remove(i));
        }
        self.tokens -= tokens;
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(model: usize, lengths: &[usize]) -> Texts {
        Texts { model, ids: lengths.iter().map(|&n| vec![1; n]).collect(), answer: oneshot::channel().0 }
    }

    #[test]
    fn texts_of_one_model_are_taken_together_up_to_a_number_of_tokens() {
        let queue = Queue::new(9);
        for (model, lengths) in [(0, &[3, 4][..]), (1, &[5]), (0, &[2]), (0, &[90]), (0, &[1]), (1, &[1])] {
            assert!(queue.push_texts(texts(model, lengths)));
        }
        assert_eq!(queue.waiting(), (6, 106));
        let mut taken = Vec::new();
        while let batch = queue.texts(10)
            && !batch.is_empty()
        {
            taken.push(batch.iter().map(|t| (t.model, t.tokens())).collect::<Vec<_>>());
        }
        // A single request may be larger than a batch. No request overtakes an older one of its model.
        assert_eq!(taken, [vec![(0, 7), (0, 2)], vec![(1, 5), (1, 1)], vec![(0, 90)], vec![(0, 1)]]);
        assert_eq!(queue.waiting(), (0, 0));
    }

    #[test]
    fn a_full_queue_refuses_and_a_closed_one_ends() {
        let queue = Queue::new(2);
        assert!(queue.push_texts(texts(0, &[1])) && queue.push_task(Box::new(|_, _| ())) && !queue.push_texts(texts(0, &[1])));
        assert!(!queue.push_task(Box::new(|_, _| ())));
        assert!(matches!(queue.next(Duration::ZERO, 9), Work::Texts(all) if all.len() == 1));
        assert!(matches!(queue.next(Duration::ZERO, 9), Work::Task(_)));
        assert!(matches!(queue.next(Duration::ZERO, 9), Work::Nothing));
        assert!(!queue.push_texts(texts(0, &[TOKENS + 1])));
        queue.close();
        assert!(matches!(queue.next(Duration::from_secs(60), 9), Work::End) && !queue.push_texts(texts(0, &[1])));
    }
}
