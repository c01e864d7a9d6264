//! The commands that wait for one instance's thread. Unlike a channel, the sending side can take back what was not begun: a
//! batch in the queue of an instance that hangs would live as long as that does.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// A queue with one receiver. Bounded by its user: a lane has at most `concurrency` batches in flight.
pub(crate) struct Commands<T> {
    queue: Mutex<Queue<T>>,
    changed: Condvar,
}

struct Queue<T> {
    waiting: VecDeque<T>,
    /// The receiver is gone.
    closed: bool,
}

/// The receiving end. Dropping it, also by a panic, drops what waits and refuses what comes.
pub(crate) struct Receiver<T>(Arc<Commands<T>>);

/// An empty queue and its receiver.
pub(crate) fn commands<T>() -> (Arc<Commands<T>>, Receiver<T>) {
    let queue = Mutex::new(Queue { waiting: VecDeque::new(), closed: false });
    let commands = Arc::new(Commands { queue, changed: Condvar::new() });
    (commands.clone(), Receiver(commands))
}

impl<T> Commands<T> {
    /// Adds a command behind the others; gives it back when the receiver is gone.
    pub(crate) fn send(&self, command: T) -> Result<(), T> {
        let mut queue = self.lock();
        if queue.closed {
            return Err(command);
        }
        queue.waiting.push_back(command);
        drop(queue);
        self.changed.notify_one();
        Ok(())
    }

    /// Drops all that waits; `last` is what the receiver gets next. Does nothing when the receiver is gone.
    pub(crate) fn replace(&self, last: T) {
        let mut queue = self.lock();
        if queue.closed {
            return;
        }
        let dropped = std::mem::replace(&mut queue.waiting, VecDeque::from([last]));
        drop(queue);
        self.changed.notify_one();
        // After the lock: batches may be large.
        drop(dropped);
    }

    fn lock(&self) -> MutexGuard<'_, Queue<T>> {
        // Each change is one operation on the queue, so a poisoned lock is still good.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> Receiver<T> {
    /// Waits for the next command. The sending side ends with one that tells the receiver to end, so there is always a next.
    pub(crate) fn next(&self) -> T {
        let mut queue = self.0.lock();
        loop {
            if let Some(command) = queue.waiting.pop_front() {
                return command;
            }
            queue = self.0.changed.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        let mut queue = self.0.lock();
        queue.closed = true;
        let dropped = std::mem::take(&mut queue.waiting);
        drop(queue);
        drop(dropped);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_waits_is_taken_in_order_replaced_and_refused() {
        let (commands, receiver) = commands();
        for command in 1..=3 {
            assert_eq!(commands.send(command), Ok(()));
        }
        assert_eq!(receiver.next(), 1);
        commands.replace(9);
        assert_eq!(commands.send(10), Ok(()));
        assert_eq!((receiver.next(), receiver.next()), (9, 10));
        let waiting = std::thread::spawn(move || (receiver.next(), receiver));
        assert_eq!(commands.send(11), Ok(()));
        let (command, receiver) = waiting.join().unwrap();
        assert_eq!((command, commands.send(12)), (11, Ok(())));
        drop(receiver);
        assert_eq!(commands.send(13), Err(13));
        commands.replace(14);
        assert!(commands.lock().waiting.is_empty());
    }
}
