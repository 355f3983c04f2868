//! Frames: a length and so many bytes of JSON.

use std::collections::VecDeque;

use axum::body::BodyDataStream;
use bytes::{Buf, Bytes};
use futures_util::StreamExt;
use model::link::MAX_FRAME;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Why a frame cannot be read.
#[derive(Debug, thiserror::Error)]
pub(super) enum FrameError {
    #[error("a frame of {0} bytes is too long")]
    TooLong(usize),
    #[error("the connection ended inside a frame")]
    Cut,
    #[error("the connection failed: {0}")]
    Connection(#[from] axum::Error),
    #[error("a message cannot be read: {0}")]
    Json(#[from] serde_json::Error),
}

/// Reports are small: what a node says is bounded tighter than what it is told.
const MAX_FROM_NODE: usize = 4 << 20;

/// Reads messages from a request body.
pub(super) struct Frames {
    body: BodyDataStream,
    chunks: VecDeque<Bytes>,
    have: usize,
}

impl Frames {
    pub(super) fn new(body: BodyDataStream) -> Self {
        Self { body, chunks: VecDeque::new(), have: 0 }
    }

    /// The next message; nothing at the body's end. Nothing is lost when this is dropped before it is ready.
    pub(super) async fn next<T: DeserializeOwned>(&mut self) -> Result<Option<T>, FrameError> {
        if !self.fill(4).await? {
            return Ok(None);
        }
        let mut head = [0; 4];
        for (to, from) in head.iter_mut().zip(self.chunks.iter().flatten()) {
            *to = *from;
        }
        let length = u32::from_be_bytes(head) as usize;
        if length > MAX_FROM_NODE {
            return Err(FrameError::TooLong(length));
        }
        if !self.fill(4 + length).await? {
            return Err(FrameError::Cut);
        }
        self.take(4);
        Ok(Some(serde_json::from_slice(&self.take(length))?))
    }

    async fn fill(&mut self, wanted: usize) -> Result<bool, FrameError> {
        while self.have < wanted {
            match self.body.next().await {
                Some(chunk) => {
                    let chunk = chunk?;
                    self.have += chunk.len();
                    self.chunks.push_back(chunk);
                }
                None if self.have == 0 => return Ok(false),
                None => return Err(FrameError::Cut),
            }
        }
        Ok(true)
    }

    fn take(&mut self, length: usize) -> Vec<u8> {
        let mut out = Vec::with_capacity(length);
        while out.len() < length {
            let Some(first) = self.chunks.front_mut() else { break };
            let part = first.len().min(length - out.len());
            out.extend_from_slice(&first[..part]);
            first.advance(part);
            if first.is_empty() {
                self.chunks.pop_front();
            }
        }
        self.have -= out.len();
        out
    }
}

/// A message as a frame; nothing when it is longer than a node accepts.
pub(super) fn frame(message: &impl Serialize) -> Option<Bytes> {
    let json = serde_json::to_vec(message).ok()?;
    let length = u32::try_from(json.len()).ok().filter(|length| *length as usize <= MAX_FRAME)?;
    let mut out = Vec::with_capacity(4 + json.len());
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(&json);
    Some(out.into())
}
