//! The records of our partitions, in a queue of their own that is taken in batches.
//!
//! rdkafka hands out one record a call: an event, two locks and three looks at the clock for each.
//! librdkafka's batches cost that once for many, and drop the rebalances that lie among the records;
//! so the records are led into a queue that holds nothing else, and the consumer's own queue keeps
//! all that is no record, for rdkafka to serve.
//!
//! What such a batch does besides: librdkafka takes all that is in it for read. So its own position
//! goes beyond what an error stood for, and never goes back with a log; see `take.rs`.
//!
//! Owns that queue. One of the two files with `unsafe`: rdkafka has no name for these calls.
//! Measured side by side by `scripts/bench`, candles of 185 B, the program before as `--command`: the
//! bridge spends 0.89 of the CPU a record that it spent before.

use std::ffi::{CStr, CString, c_void};
use std::marker::PhantomData;
use std::ptr::{self, NonNull};
use std::str::Utf8Error;
use std::sync::Arc;
use std::time::Duration;

use rdkafka::bindings as rd;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::BorrowedMessage;

use super::context::Context;
use crate::record::UnixMs;

/// What was led here of one consumer.
pub(super) struct Queue {
    queue: NonNull<rd::rd_kafka_queue_t>,
    /// Lives longer than the queue: librdkafka wants its queues back before it ends.
    consumer: Arc<BaseConsumer<Context>>,
}

#[expect(unsafe_code, reason = "librdkafka is made for several threads")]
// SAFETY: librdkafka's queues may be used by any thread.
unsafe impl Send for Queue {}

#[expect(unsafe_code, reason = "rdkafka has no batches; measured above")]
impl Queue {
    pub(super) fn new(consumer: &Arc<BaseConsumer<Context>>) -> Self {
        // SAFETY: the client lives as long as the consumer; the queue is ours to give back.
        let queue = unsafe { rd::rd_kafka_queue_new(consumer.client().native_ptr()) };
        let queue = NonNull::new(queue).expect("librdkafka aborts when it is out of memory");
        Self { queue, consumer: Arc::clone(consumer) }
    }

    /// Leads the records of a partition here: best before it is assigned, since what was fetched
    /// before lies in the consumer's own queue. Once is enough for an assignment; to repeat it does
    /// no harm.
    pub(super) fn lead_here(&self, topic: &str, number: i32) {
        let Ok(topic) = CString::new(topic) else { return }; // Kafka has no such name
        // SAFETY: client and name are alive for the call; the partition's queue is given back once.
        // librdkafka counts who refers to ours: giving it back does not wait for the partitions.
        unsafe {
            let client = self.consumer.client().native_ptr();
            let of_partition = rd::rd_kafka_queue_get_partition(client, topic.as_ptr(), number);
            if !of_partition.is_null() {
                rd::rd_kafka_queue_forward(of_partition, self.queue.as_ptr());
                rd::rd_kafka_queue_destroy(of_partition);
            }
        }
    }

    /// At most so many records. Waits until there are as many, so whoever wants what comes next
    /// asks for one.
    pub(super) fn take(&self, most: usize, wait: Duration) -> Batch {
        let mut messages: Vec<*mut rd::rd_kafka_message_t> = Vec::with_capacity(most);
        let wait_ms = i32::try_from(wait.as_millis()).unwrap_or(i32::MAX);
        // SAFETY: the queue is alive, there is room for as many messages as are asked for, and as
        // many are there as it says. Negative would be an error, of which this call has none.
        unsafe {
            let (queue, room) = (self.queue.as_ptr(), messages.as_mut_ptr());
            let count = rd::rd_kafka_consume_batch_queue(queue, wait_ms, room, most);
            messages.set_len(usize::try_from(count).unwrap_or(0));
        }
        let _consumer = Arc::clone(&self.consumer);
        Batch { messages: messages.into_iter(), lent: None, _consumer }
    }
}

#[expect(unsafe_code, reason = "what was taken from C is given back to C")]
impl Drop for Queue {
    fn drop(&mut self) {
        // SAFETY: made in `new`, given back once, while the consumer is alive. What lies in it goes.
        unsafe { rd::rd_kafka_queue_destroy(self.queue.as_ptr()) };
    }
}

/// Records that were taken and not looked at, all of them ours to give back.
pub(super) struct Batch {
    messages: std::vec::IntoIter<*mut rd::rd_kafka_message_t>,
    /// The one that was looked at last.
    lent: Option<Message>,
    /// Lives longer than they do.
    _consumer: Arc<BaseConsumer<Context>>,
}

impl Batch {
    pub(super) fn len(&self) -> usize {
        self.messages.len()
    }

    /// The next record, or what the broker says in place of one. It goes back to librdkafka with the
    /// call after this one.
    pub(super) fn next(&mut self) -> Option<Result<View<'_>, Box<Unread>>> {
        let message = NonNull::new(self.messages.next()?)?;
        Some(self.lent.insert(Message(message)).view().checked())
    }
}

impl Drop for Batch {
    fn drop(&mut self) {
        self.messages.by_ref().filter_map(NonNull::new).map(Message).for_each(drop);
    }
}

/// What the broker says in place of a record.
pub(super) struct Unread {
    pub(super) error: KafkaError,
    /// Its own words.
    pub(super) reason: String,
    /// Topic, partition, and the offset of what could not be read; None of the brokers as a whole.
    pub(super) place: Option<(String, i32, i64)>,
}

/// A message that is ours to give back, once.
struct Message(NonNull<rd::rd_kafka_message_t>);

impl Message {
    fn view(&self) -> View<'_> {
        View { raw: self.0, lent: PhantomData }
    }
}

#[expect(unsafe_code, reason = "what was taken from C is given back to C")]
impl Drop for Message {
    fn drop(&mut self) {
        // SAFETY: it came out of a batch, and whoever looked at it had it from `self`.
        unsafe { rd::rd_kafka_message_destroy(self.0.as_ptr()) };
    }
}

/// A record as it lies in librdkafka. A pointer, and no reference: to read the headers writes to
/// what lies behind.
#[derive(Clone, Copy)]
pub(super) struct View<'a> {
    raw: NonNull<rd::rd_kafka_message_t>,
    lent: PhantomData<&'a Message>,
}

#[expect(unsafe_code, reason = "librdkafka's records are pointers and lengths")]
impl<'a> View<'a> {
    /// A record that rdkafka handed out.
    pub(super) fn of(message: &'a BorrowedMessage<'_>) -> Self {
        let raw = NonNull::new(message.ptr()).expect("rdkafka has read it already");
        Self { raw, lent: PhantomData }
    }

    fn raw(self) -> &'a rd::rd_kafka_message_t {
        // SAFETY: librdkafka has filled it, nobody writes to this part of it, and it is not given
        // back before 'a ends.
        unsafe { self.raw.as_ref() }
    }

    /// The record, if it is one.
    fn checked(self) -> Result<Self, Box<Unread>> {
        let code = RDKafkaErrorCode::from(self.raw().err);
        let error = match code {
            RDKafkaErrorCode::NoError => return Ok(self),
            RDKafkaErrorCode::Fatal => KafkaError::MessageConsumptionFatal(code),
            _ => KafkaError::MessageConsumption(code),
        };
        // SAFETY: there is an error, so there is a string, which lives as long as the message.
        let words = unsafe { CStr::from_ptr(rd::rd_kafka_message_errstr(self.raw.as_ptr())) };
        let has_place = !self.raw().rkt.is_null();
        let place = has_place.then(|| (self.topic().to_owned(), self.partition(), self.offset()));
        Err(Box::new(Unread { error, reason: words.to_string_lossy().into_owned(), place }))
    }

    /// Tells topics apart, and means nothing else.
    pub(super) fn topic_id(self) -> usize {
        self.raw().rkt.addr()
    }

    pub(super) fn topic(self) -> &'a str {
        // SAFETY: the topic lives as long as a message of it, and so does its name.
        let name = unsafe { CStr::from_ptr(rd::rd_kafka_topic_name(self.raw().rkt)) };
        name.to_str().expect("Kafka's topics have ASCII names")
    }

    pub(super) fn partition(self) -> i32 {
        self.raw().partition
    }

    pub(super) fn offset(self) -> i64 {
        self.raw().offset
    }

    /// As the producer or the broker says.
    pub(super) fn timestamp(self) -> Option<UnixMs> {
        let unknown = rd::rd_kafka_timestamp_type_t::RD_KAFKA_TIMESTAMP_NOT_AVAILABLE;
        let mut kind = unknown;
        // SAFETY: both are alive for the call.
        let time = unsafe { rd::rd_kafka_message_timestamp(self.raw.as_ptr(), &raw mut kind) };
        (kind != unknown && time != -1).then_some(time)
    }

    pub(super) fn key(self) -> Option<&'a [u8]> {
        // SAFETY: librdkafka's pointer and length, of memory that lives as long as the message.
        unsafe { slice(self.raw().key, self.raw().key_len) }
    }

    /// None is a tombstone.
    pub(super) fn payload(self) -> Option<&'a [u8]> {
        // SAFETY: as of the key.
        unsafe { slice(self.raw().payload, self.raw().len) }
    }

    /// What key and payload weigh.
    pub(super) fn bytes(self) -> usize {
        self.raw().key_len + self.raw().len
    }

    /// Names and values, in order.
    ///
    /// # Errors
    /// When a name is not UTF-8.
    pub(super) fn headers(self) -> Result<Vec<(&'a str, &'a [u8])>, Utf8Error> {
        let mut headers = ptr::null_mut();
        // SAFETY: the headers, once they are read, belong to the message.
        let error = unsafe { rd::rd_kafka_message_headers(self.raw.as_ptr(), &raw mut headers) };
        if error != rd::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR {
            return Ok(Vec::new()); // it has none
        }
        // SAFETY: they are there, and as many as are counted.
        let count = unsafe { rd::rd_kafka_header_cnt(headers) };
        (0..count).map(|index| self.header(headers, index)).collect()
    }

    fn header(
        self,
        headers: *const rd::rd_kafka_headers_t,
        index: usize,
    ) -> Result<(&'a str, &'a [u8]), Utf8Error> {
        let (mut name, mut value, mut len) = (c"".as_ptr(), ptr::null(), 0);
        // SAFETY: the headers are the message's; name and value live as long as they do. Where
        // there is nothing at this index, both stay as they were.
        unsafe {
            let (name_at, value_at) = (&raw mut name, &raw mut value);
            rd::rd_kafka_header_get_all(headers, index, name_at, value_at, &raw mut len);
            Ok((CStr::from_ptr(name).to_str()?, slice(value, len).unwrap_or_default()))
        }
    }
}

/// # Safety
/// Unless it is null, so many bytes can be read there as long as 'a.
#[expect(unsafe_code, reason = "librdkafka's records are pointers and lengths")]
unsafe fn slice<'a>(start: *const c_void, len: usize) -> Option<&'a [u8]> {
    // SAFETY: promised by whoever calls; an empty slice wants an aligned pointer, as any is.
    (!start.is_null()).then(|| unsafe { std::slice::from_raw_parts(start.cast(), len) })
}
