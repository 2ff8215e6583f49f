//! Which trace something belongs to, as W3C Trace Context writes it: `traceparent`. Pure.

/// A span, wherever it is kept: the trace that it belongs to, and its own id. Neither is all zeros.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Context {
    pub trace_id: [u8; 16],
    pub span_id: [u8; 8],
}

impl Context {
    /// The header's name; producers write it in any case.
    pub const HEADER: &'static str = "traceparent";

    /// The first span of a trace of its own.
    #[must_use]
    pub fn random() -> Self {
        // All zeros would be no id.
        let trace_id = rand::random::<u128>().max(1).to_be_bytes();
        Self { trace_id, span_id: [0; 8] }.child()
    }

    /// Another span of the same trace.
    #[must_use]
    pub fn child(self) -> Self {
        Self { span_id: rand::random::<u64>().max(1).to_be_bytes(), ..self }
    }

    /// What a header's value says, if its producer keeps the span: `00-<32 hex>-<16 hex>-<flags>`,
    /// with the flag `sampled`. Later versions may have more behind it. None also for what is
    /// malformed: a header of somebody else's making is no reason to complain.
    #[must_use]
    pub fn sampled(header: &[u8]) -> Option<Self> {
        let mut parts = str::from_utf8(header).ok()?.trim().split('-');
        let [version] = bytes(parts.next()?)?;
        let context = Self { trace_id: bytes(parts.next()?)?, span_id: bytes(parts.next()?)? };
        let [flags] = bytes(parts.next()?)?;
        let fits = version != 0xff && (version != 0 || parts.next().is_none());
        let is_an_id = context.trace_id != [0; 16] && context.span_id != [0; 8];
        (fits && is_an_id && flags & 1 == 1).then_some(context)
    }
}

/// Exactly so many bytes in hexadecimal, in small letters as the standard has them.
fn bytes<const N: usize>(hex: &str) -> Option<[u8; N]> {
    let digits = hex.as_bytes();
    if digits.len() != 2 * N {
        return None;
    }
    let mut out = [0; N];
    for (byte, pair) in out.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = nibble(pair[0])? << 4 | nibble(pair[1])?;
    }
    Some(out)
}

fn nibble(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
    const SPAN: &str = "b7ad6b7169203331";

    #[test]
    fn a_sampled_producer_is_known_by_its_ids() {
        let context = Context::sampled(format!("00-{TRACE}-{SPAN}-01").as_bytes()).unwrap();
        assert_eq!(
            u128::from_be_bytes(context.trace_id),
            0x0af7_6519_16cd_43dd_8448_eb21_1c80_319c
        );
        assert_eq!(u64::from_be_bytes(context.span_id), 0xb7ad_6b71_6920_3331);
        // A version to come may say more.
        assert!(Context::sampled(format!("cc-{TRACE}-{SPAN}-03-what").as_bytes()).is_some());
    }

    #[test]
    fn what_leads_nowhere_is_no_context() {
        let zeros = "0".repeat(32);
        for wrong in [
            String::new(),
            format!("00-{TRACE}-{SPAN}-00"),
            format!("00-{zeros}-{SPAN}-01"),
            format!("00-{TRACE}-{}-01", &zeros[..16]),
            format!("00-{}-{SPAN}-01", TRACE.to_uppercase()),
            format!("00-{TRACE}-{SPAN}-01-more"),
            format!("ff-{TRACE}-{SPAN}-01"),
            format!("00-{TRACE}x-{SPAN}-01"),
            format!("00-{TRACE}-{SPAN}"),
            format!("{TRACE}-{SPAN}-01"),
        ] {
            assert_eq!(Context::sampled(wrong.as_bytes()), None, "{wrong}");
        }
        assert_eq!(Context::sampled(&[0xff, 0xfe]), None);
    }

    #[test]
    fn a_child_stays_in_its_trace() {
        let one = Context::random();
        let other = one.child();
        assert_eq!(one.trace_id, other.trace_id);
        assert_ne!(one.span_id, other.span_id);
    }
}
