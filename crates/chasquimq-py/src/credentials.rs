//! `Credentials`: whom Python code lets the engine be, asked at each connection.
//!
//! The engine's questions wait here. An event loop is told of them through its mailbox, asks the
//! program's function in its own time, and answers all of them at once.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use chasquimq::{ConnectionTuning, Login};
use pyo3::prelude::*;
use tokio::sync::oneshot;
use tokio::time::timeout;

use crate::mailbox::{Mailbox, Slot};
use crate::runtime::Owner;

/// How long the event loop may take: longer than it gives the function, shorter than the engine waits.
const PATIENCE: Duration = Duration::from_secs(9);

type Answer = Result<Login, String>;

/// The questions about one queue's, worker's or subscriber's login.
#[pyclass(frozen, from_py_object, module = "chasquimq._native")]
#[derive(Clone)]
pub struct Credentials {
    owner: Owner,
    questions: Arc<Questions>,
}

struct Questions {
    /// By which Python finds the function.
    number: u64,
    /// The mailbox of the event loop that was here last, unless one was chosen for good.
    slot: Mutex<Weak<Slot>>,
    is_chosen: bool,
    /// Bounded by the connections, each of which asks one question at a time.
    waiting: Mutex<Vec<oneshot::Sender<Answer>>>,
}

#[pymethods]
impl Credentials {
    /// With a mailbox it alone is told of questions: callers that read theirs only while they wait cannot
    /// answer for a connection that breaks between their calls, or after one of them has left.
    #[new]
    #[pyo3(signature = (number, mailbox=None, /))]
    fn new(number: u64, mailbox: Option<&Mailbox>) -> PyResult<Self> {
        let slot = mailbox.map(|mailbox| Arc::downgrade(&mailbox.slot()));
        let (is_chosen, slot) = (slot.is_some(), Mutex::new(slot.unwrap_or_default()));
        let questions = Arc::new(Questions { number, slot, is_chosen, waiting: Mutex::default() });
        Ok(Self { owner: Owner::here()?, questions })
    }

    /// Answers all questions that wait.
    fn answer(&self, user: Option<String>, password: String) {
        self.end(&Ok(Login { user, password }));
    }

    /// Tells all who wait why there is no answer.
    fn refuse(&self, why: String) {
        self.end(&Err(why));
    }
}

impl Credentials {
    /// From now on this mailbox is told of questions, also of those that wait; unless one was chosen.
    pub fn listen(&self, slot: &Arc<Slot>) {
        if self.questions.is_chosen {
            return;
        }
        let mut current = lock(&self.questions.slot);
        if std::ptr::eq(current.as_ptr(), Arc::as_ptr(slot)) {
            return;
        }
        *current = Arc::downgrade(slot);
        drop(current);
        if !lock(&self.questions.waiting).is_empty() {
            slot.ask(self.questions.number);
        }
    }

    /// The tuning of a connection with these credentials.
    pub fn tuning(credentials: Option<&Self>) -> ConnectionTuning {
        let asked = credentials.map(|credentials| {
            let questions = Arc::clone(&credentials.questions);
            chasquimq::Credentials::new(move || {
                let questions = Arc::clone(&questions);
                async move { questions.ask().await }
            })
        });
        ConnectionTuning { credentials: asked, ..ConnectionTuning::default() }
    }

    fn end(&self, answer: &Answer) {
        // In a forked child the questions are the parent's.
        if self.owner.handle().is_some() {
            for question in std::mem::take(&mut *lock(&self.questions.waiting)) {
                // One that nobody waits for any more.
                let _ = question.send(answer.clone());
            }
        }
    }
}

impl Questions {
    async fn ask(&self) -> Answer {
        let (question, answer) = oneshot::channel();
        {
            let mut waiting = lock(&self.waiting);
            waiting.retain(|question| !question.is_closed());
            waiting.push(question);
        }
        let slot = lock(&self.slot).upgrade();
        if let Some(slot) = slot {
            slot.ask(self.number);
        }
        match timeout(PATIENCE, answer).await {
            Ok(Ok(answer)) => answer,
            _ => Err(format!(
                "no event loop asked for them within {} s: the one that used them last has ended, \
                 or a call blocks it",
                PATIENCE.as_secs()
            )),
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
