//! The body of one response: a client's frames as hyper asks for them. hyper asks only while the connection takes bytes, so that
//! what a client does not read waits in its queue, where it is bounded.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::Bytes;
use http_body::{Body, Frame};

use crate::client::{Client, End, Next};
use crate::hub::Hub;

/// Looks into the history before the other connections have their turn.
const REPLAYS_MAX: usize = 4;

/// What a request is answered with.
pub enum Answer {
    /// A text, whole.
    Text(Option<Bytes>),
    /// The stream of a client.
    Stream(Stream),
}

/// A client's stream. Dropping it takes the client out of the hub.
pub struct Stream {
    /// Where it comes from.
    pub hub: Arc<Hub>,
    /// Whose it is.
    pub client: Arc<Client>,
}

/// The stream ends in the middle: hyper then cuts the connection instead of finishing the response.
#[derive(Debug)]
pub struct Cut;

impl std::fmt::Display for Cut {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the client is sent away")
    }
}

impl std::error::Error for Cut {}

impl Body for Answer {
    type Data = Bytes;
    type Error = Cut;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Cut>>> {
        match &mut *self {
            Answer::Text(text) => Poll::Ready(text.take().map(|text| Ok(Frame::data(text)))),
            Answer::Stream(stream) => stream.poll(cx).map(|frames| frames.map(|frames| frames.map(Frame::data))),
        }
    }

    fn size_hint(&self) -> http_body::SizeHint {
        match self {
            Answer::Text(text) => http_body::SizeHint::with_exact(text.as_ref().map_or(0, |text| text.len() as u64)),
            Answer::Stream(_) => http_body::SizeHint::default(),
        }
    }
}

impl Stream {
    fn poll(&self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Cut>>> {
        for _ in 0..REPLAYS_MAX {
            // In a binding: the queue must not stay locked while the hub looks into the history.
            let next = self.client.queue().next(cx.waker(), Instant::now());
            match next {
                Next::Frames(frames) => return Poll::Ready(Some(Ok(frames))),
                Next::Replay(seq) => self.hub.replay(&self.client, seq),
                Next::Nothing => return Poll::Pending,
                Next::End(End::Drained) => return Poll::Ready(None),
                Next::End(End::Stalled | End::Outrun) => return Poll::Ready(Some(Err(Cut))),
            }
        }
        // A long history with nothing for this client: the others are to have their turn.
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.hub.remove(&self.client);
    }
}
