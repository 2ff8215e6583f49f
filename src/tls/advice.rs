//! What to do about a TLS connection that does not come about.
//!
//! Reads the error's text, not its type: of what goes wrong in a client's depths some clients hand
//! on nothing else. The tests with real certificates see to it that the words stay the library's.

/// Where a person would mend it.
#[derive(Debug)]
pub struct Keys {
    address: &'static str,
    ca: &'static str,
    identity: &'static str,
}

impl Keys {
    pub const CLICKHOUSE: Self = Self {
        address: "clickhouse.url",
        ca: "clickhouse.tls.ca_file",
        identity: "clickhouse.tls.cert_file and key_file",
    };
    pub const NATS: Self = Self {
        address: "nats.servers",
        ca: "nats.tls.ca_file",
        identity: "nats.tls.cert_file and key_file",
    };
    pub const KAFKA: Self = Self {
        address: "kafka.brokers (or the broker's advertised.listeners)",
        ca: "the file of ssl.ca.location in [kafka.client]",
        identity: "ssl.certificate.location and ssl.key.location in [kafka.client]",
    };
    pub const WEBHOOK: Self = Self {
        address: "its url",
        ca: "its tls.ca_file",
        identity: "its tls.cert_file and key_file",
    };
    pub const OTLP: Self = Self {
        address: "otlp.endpoint",
        ca: "otlp.tls.ca_file",
        identity: "otlp.tls.cert_file and key_file",
    };
    pub const HEALTH: Self =
        Self { address: "--url", ca: "--ca-file", identity: "no certificate: it is not asked for" };
}

/// What is wrong, and what to do; None if it is not about TLS.
#[must_use]
pub fn advice(error: &str, keys: &Keys) -> Option<String> {
    let Keys { address, ca, identity } = keys;
    let says = |words: &str| error.contains(words);
    Some(if says(super::OTHER_CERTIFICATE) {
        format!(
            "what listens there shows another certificate than the one in http.tls.cert_file: it \
             was replaced a moment ago, or this is another program ({address} and {ca} ask for one)"
        )
    } else if says("UnknownIssuer") || says("BadSignature") || says("CaUsedAsEndEntity") {
        format!(
            "the server's certificate is not signed by an authority that we trust: put that \
             authority's certificate into {ca}"
        )
    } else if let Some((_, detail)) = error.split_once("certificate not valid for name ") {
        format!(
            "the server's certificate is for another name (wanted {detail}): correct {address}, or \
             give the server a certificate for this name"
        )
    } else if let Some((_, rest)) = error.split_once("certificate is not valid after ") {
        format!(
            "the server's certificate expired{}: renew it there; it goes on by itself",
            moment(rest)
        )
    } else if let Some((_, rest)) = error.split_once("certificate is not valid before ") {
        format!(
            "the server's certificate is not valid yet{}: check the clocks, there and here",
            moment(rest)
        )
    } else if let Some((_, alert)) = error.split_once("received fatal alert: ").filter(of_ours) {
        let alert = alert.split(|c: char| !c.is_alphanumeric()).next().unwrap_or_default();
        format!("the server does not accept who we are ({alert}): set {identity} as it wants them")
    } else if says("InvalidContentType") {
        format!("what answers speaks no TLS: correct {address}, or switch TLS on there")
    } else {
        return None;
    })
}

/// An alert about the certificate of a client.
fn of_ours((_, alert): &(&str, &str)) -> bool {
    ["Certificate", "BadCertificate", "UnknownCA", "UnsupportedCertificate", "AccessDenied"]
        .iter()
        .any(|kind| alert.starts_with(kind))
}

/// ` on 2026-01-01T00:00:00Z`, from Unix seconds at the start of a text.
fn moment(text: &str) -> String {
    let digits = text.split(|c: char| !c.is_ascii_digit()).next().unwrap_or_default();
    let seconds = digits.parse().ok().and_then(|n| jiff::Timestamp::from_second(n).ok());
    seconds.map_or_else(String::new, |moment| format!(" on {moment}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_about_tls_is_left_alone() {
        assert_eq!(advice("connection refused", &Keys::CLICKHOUSE), None);
        assert_eq!(advice("received fatal alert: InternalError", &Keys::CLICKHOUSE), None);
    }

    #[test]
    fn a_date_is_written_as_one() {
        let error = "certificate expired: verification time 1766000000 (UNIX), but certificate is \
                     not valid after 1735689600 (30310400 seconds ago)";
        let advice = advice(error, &Keys::NATS).unwrap();
        assert!(advice.contains("expired on 2025-01-01T00:00:00Z: renew it"), "{advice}");
    }
}
