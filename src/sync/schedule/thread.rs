//! `std::thread` in the order.
use super::{Is, ME, Member, leave, me, pass, wait_for_turn, wake, with};
use std::time::Duration;

pub(crate) use std::thread::ThreadId;

/// A thread that can be woken.
#[derive(Clone, Debug)]
pub(crate) struct Thread {
    place: Option<usize>,
    thread: std::thread::Thread,
}

impl Thread {
    pub(crate) fn unpark(&self) {
        match self.place {
            Some(place) => wake(place),
            None => self.thread.unpark(),
        }
    }

    pub(crate) fn id(&self) -> ThreadId {
        self.thread.id()
    }
}

pub(crate) fn current() -> Thread {
    Thread { place: me(), thread: std::thread::current() }
}

pub(crate) fn park() {
    super::sleep(false);
}

pub(crate) fn park_timeout(_: Duration) {
    super::sleep(true);
}

pub(crate) fn sleep(_: Duration) {
    pass(true);
}

pub(crate) fn yield_now() {
    pass(true);
}

#[derive(Debug)]
pub(crate) struct JoinHandle<T> {
    handle: std::thread::JoinHandle<T>,
    thread: Thread,
}

impl<T> JoinHandle<T> {
    pub(crate) fn thread(&self) -> &Thread {
        &self.thread
    }

    pub(crate) fn is_finished(&self) -> bool {
        super::point();
        let gone = |place: usize| with(|run| run.threads[place].is == Is::Gone).unwrap_or(true);
        self.thread.place.map_or_else(|| self.handle.is_finished(), gone)
    }

    pub(crate) fn join(self) -> std::thread::Result<T> {
        while me().is_some() && !self.is_finished() {
            pass(true);
        }
        self.handle.join()
    }
}

#[derive(Debug)]
pub(crate) struct Builder(std::thread::Builder);

impl Builder {
    pub(crate) fn new() -> Self {
        Self(std::thread::Builder::new())
    }

    pub(crate) fn name(self, name: String) -> Self {
        Self(self.0.name(name))
    }

    pub(crate) fn spawn<T: Send + 'static>(
        self,
        body: impl FnOnce() -> T + Send + 'static,
    ) -> std::io::Result<JoinHandle<T>> {
        let join = |run: &mut super::Run| {
            run.threads.push(Member { is: Is::Ready, token: false, thread: None });
            run.threads.len() - 1
        };
        let place = me().and_then(|_| with(join));
        let spawned = self.0.spawn(move || {
            let Some(place) = place else { return body() };
            ME.set(Some(place));
            with(|run| run.threads[place].thread = Some(std::thread::current()));
            wait_for_turn(place);
            /// Leaves after a panic too.
            struct Leaving(usize);
            impl Drop for Leaving {
                fn drop(&mut self) {
                    leave(self.0);
                }
            }
            let _leaving = Leaving(place);
            body()
        });
        match spawned {
            Ok(handle) => {
                let thread = Thread { place, thread: handle.thread().clone() };
                pass(false);
                Ok(JoinHandle { handle, thread })
            }
            Err(error) => {
                place.map(|place| with(|run| run.threads[place].is = Is::Gone));
                Err(error)
            }
        }
    }
}
