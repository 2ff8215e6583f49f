//! What to do about a broker that does not let us in: librdkafka says what OpenSSL and the broker
//! said, which is seldom what to do.

/// Some words of an error, and the remedy; the first that fits counts.
const REMEDIES: [(&[&str], &str); 5] = [
    (
        &["certificate verify failed"],
        "the broker's certificate is not accepted: ssl.ca.location in [kafka.client] does not hold \
         its authority, or it has expired, or it is for another name than kafka.brokers (or the \
         broker's advertised.listeners) say; `data-bridge check` tells which",
    ),
    (
        &["alert bad certificate", "alert certificate required", "alert unknown ca"],
        "the broker does not accept who we are: set ssl.certificate.location and ssl.key.location \
         in [kafka.client] to a certificate that it trusts",
    ),
    (
        &["Authentication failed", "invalid credentials"],
        "correct sasl.username and sasl.password in [kafka.client], or the password on the broker",
    ),
    (&["Unsupported SASL mechanism"], "correct sasl.mechanism in [kafka.client]"),
    (
        &["connecting to a PLAINTEXT", "SSL connection closed by peer", "connecting to a SSL"],
        "set security.protocol in [kafka.client] as this listener of the broker has it",
    ),
];

/// The error with what to do about it, if that is known.
pub(super) fn with_remedy(error: &str) -> String {
    let fits = |(words, _): &&(&[&str], &str)| words.iter().any(|word| error.contains(word));
    match REMEDIES.iter().find(fits) {
        Some((_, remedy)) => format!("{error}; {remedy}"),
        None => error.to_owned(),
    }
}

/// Whether somebody listens there who does not want us as we are: waiting changes nothing.
pub(super) fn is_refusal(error: &str) -> bool {
    let is_known = REMEDIES.iter().any(|(words, _)| words.iter().any(|word| error.contains(word)));
    is_known || ["uthentication", "SASL", "SSL handshake"].iter().any(|part| error.contains(part))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_without_a_remedy_stays_as_it_is() {
        let error = "Connect to ipv4#127.0.0.1:1 failed: Connection refused";
        assert_eq!(with_remedy(error), error);
        assert!(!is_refusal(error));
    }

    #[test]
    fn a_refused_login_names_the_keys() {
        let error = "SASL authentication error: Authentication failed during authentication due to \
                     invalid credentials with SASL mechanism SCRAM-SHA-512";
        assert!(with_remedy(error).ends_with("or the password on the broker"));
        assert!(is_refusal(error));
    }
}
