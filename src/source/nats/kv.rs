//! Key-value buckets, as far as whoever keeps something in one asks the same of them.

use async_nats::jetstream::context::{GetStreamError, GetStreamErrorKind, KeyValueError};
use async_nats::jetstream::kv::Store;
use async_nats::jetstream::message::StreamMessage;
use async_nats::jetstream::stream::LastRawMessageErrorKind;
use async_nats::jetstream::{Context, ErrorCode};

/// The bucket; None if there is none.
pub(super) async fn open(context: &Context, bucket: &str) -> Result<Option<Store>, String> {
    match context.get_key_value(bucket).await {
        Ok(store) => Ok(Some(store)),
        Err(error) if is_missing(&error) => Ok(None),
        Err(error) => Err(error.to_string()),
    }
}

/// What was last done to a key, from the leader of the bucket: a replica may be behind. None if
/// nothing ever was.
pub(super) async fn last(store: &Store, key: &str) -> Result<Option<StreamMessage>, String> {
    let subject = format!("{}{key}", store.prefix);
    match store.stream.get_last_raw_message_by_subject(&subject).await {
        Ok(message) => Ok(Some(message)),
        Err(error) if error.kind() == LastRawMessageErrorKind::NoMessageFound => Ok(None),
        Err(error) => Err(error.to_string()),
    }
}

/// A key that was deleted is a message without a value.
pub(super) fn is_deleted(message: &StreamMessage) -> bool {
    message.headers.get("KV-Operation").is_some()
}

fn is_missing(error: &KeyValueError) -> bool {
    let source = std::error::Error::source(error);
    let source = source.and_then(|source| source.downcast_ref::<GetStreamError>());
    source.is_some_and(|error| match error.kind() {
        GetStreamErrorKind::JetStream(error) => error.error_code() == ErrorCode::STREAM_NOT_FOUND,
        _ => false,
    })
}
