//! DATA and BDAT: how a body comes in, whole or in chunks, wanted or not.
//!
//! A chunk that is refused is swallowed first, because its octets follow its command without
//! waiting for the reply (RFC 3030 section 2); read as commands they would be somebody's mail.

use std::time::Duration;

use super::{OpenChunk, Question, Server, Stage, State};
use crate::queue::envelope::BodyKind;
use crate::smtp::body::{BodyDecoder, Framing};
use crate::smtp::command::Chunk;
use crate::smtp::extension::Extension;
use crate::smtp::refusal::Refusal;

impl Server {
    pub(super) fn on_body_verdict(&mut self, verdict: Result<(), Refusal>, now: Duration) {
        let binary = self.transaction.as_ref().is_some_and(|t| t.body == BodyKind::BinaryMime);
        let framing = match (&self.chunk, binary) {
            (None, _) => Framing::Dots,
            (Some(_), false) => Framing::Chunks,
            (Some(_), true) => Framing::BinaryChunks,
        };
        self.begin_window(now);
        match (verdict, &mut self.chunk) {
            (Ok(()), None) => {
                self.decoder = Some(BodyDecoder::new(framing, self.settings.body));
                self.state = State::Data;
                self.say(format_args!("354 end the message with a dot on a line of its own"));
            }
            (Ok(()), Some(_)) => {
                self.decoder = Some(BodyDecoder::new(framing, self.settings.body));
                self.enter_chunk(now);
            }
            (Err(refusal), None) => {
                self.state = State::Commands;
                self.refuse(Stage::Data, refusal, None);
                self.forget_transaction();
            }
            (Err(refusal), Some(chunk)) => {
                chunk.refusal = Some(refusal);
                self.enter_chunk(now);
            }
        }
    }

    pub(super) fn take_data(&mut self, octets: &[u8], now: Duration) -> usize {
        let Some(decoder) = &mut self.decoder else {
            debug_assert!(false, "a body has a decoder");
            return 0;
        };
        let before = decoder.octets();
        let taken = decoder.push(octets, &mut self.body);
        let (came, fault) = (decoder.octets() - before, decoder.fault());
        self.count_octets(came, taken.octets, now);
        if fault.is_some() {
            self.body.clear();
        }
        self.check_session_size();
        if taken.ended && self.state == State::Data {
            self.end_of_message(fault);
        }
        taken.octets
    }

    pub(super) fn on_bdat(&mut self, said: Chunk, now: Duration) {
        let settings = &self.settings;
        let refusal = if !settings.grammar.offer.has(Extension::Chunking) {
            Some(Refusal::NotOffered)
        } else {
            self.why_no_body()
        };
        if said.octets > settings.body.size_max.saturating_mul(2) {
            self.refuse(Stage::Data, Refusal::ChunkTooLarge, None);
            return;
        }
        if self.octets.saturating_add(said.octets) > settings.session_octets_max {
            self.refuse(Stage::Data, Refusal::SessionTooLarge, None);
            return;
        }
        self.chunk = Some(OpenChunk { said, remaining: said.octets, refusal });
        if refusal.is_none() && self.decoder.is_none() {
            self.state = State::Asking(Question::Body);
        } else {
            self.begin_window(now);
            self.enter_chunk(now);
        }
    }

    fn enter_chunk(&mut self, now: Duration) {
        self.state = State::Chunk;
        if self.chunk.is_some_and(|chunk| chunk.remaining == 0) {
            self.quiet_since = now;
            self.end_of_chunk();
        }
    }

    pub(super) fn take_chunk(&mut self, octets: &[u8], now: Duration) -> usize {
        let Some(chunk) = &mut self.chunk else {
            debug_assert!(false, "the state says that a chunk is open");
            return 0;
        };
        let wanted = usize::try_from(chunk.remaining).unwrap_or(usize::MAX);
        let octets = octets.get(..wanted).unwrap_or(octets);
        chunk.remaining -= octets.len() as u64;
        let done = chunk.remaining == 0;
        if let (None, Some(decoder)) = (chunk.refusal, &mut self.decoder) {
            decoder.push(octets, &mut self.body);
            if decoder.fault().is_some() {
                self.body.clear();
            }
        }
        self.count_octets(octets.len() as u64, octets.len(), now);
        if done {
            self.end_of_chunk();
        }
        octets.len()
    }

    fn end_of_chunk(&mut self) {
        let Some(chunk) = self.chunk.take() else {
            debug_assert!(false, "the state says that a chunk is open");
            return;
        };
        self.state = State::Commands;
        if let Some(refusal) = chunk.refusal {
            self.refuse(Stage::Data, refusal, None);
            // What was refused for its place in the order leaves the transaction as it was.
            if self.why_no_body().is_none() {
                self.forget_transaction();
            }
            return;
        }
        let Some(decoder) = &mut self.decoder else {
            debug_assert!(false, "a chunk that is taken has a decoder");
            return;
        };
        if chunk.said.last {
            decoder.finish_chunks();
        }
        let fault = decoder.fault();
        if chunk.said.last || fault.is_some() {
            self.end_of_message(fault);
        } else {
            let octets = chunk.said.octets;
            self.say(format_args!("250 2.0.0 {octets} octets taken"));
        }
    }

    fn end_of_message(&mut self, fault: Option<Refusal>) {
        match fault {
            None => self.state = State::Asking(Question::Commit),
            Some(refusal) => {
                self.state = State::Commands;
                self.refuse(Stage::End, refusal, None);
                self.forget_transaction();
                self.stop_if_asked();
            }
        }
    }

    fn count_octets(&mut self, came: u64, wire: usize, now: Duration) {
        if wire > 0 {
            self.quiet_since = now;
        }
        self.window_octets = self.window_octets.saturating_add(wire as u64);
        self.octets = self.octets.saturating_add(came);
    }

    /// A message without a declared size shows only on its way that it is too much.
    fn check_session_size(&mut self) {
        if self.octets > self.settings.session_octets_max {
            self.refuse(Stage::End, Refusal::SessionTooLarge, None);
            self.forget_transaction();
        }
    }
}
