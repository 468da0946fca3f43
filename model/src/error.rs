//! Errors as they cross a wire: from site to site, from site to user.
//!
//! The errors inside a program are its own types with their sources; at the edge each becomes a [`WireError`], whose
//! code is a word that programs can rely on and whose hint tells people what to do next.

mod code;

use std::fmt;

use serde::{Deserialize, Serialize};

pub use code::ErrorCode;

use crate::text::made_printable;

/// One failure, complete in itself: what was tried, on what, why it failed, and what to do next.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WireError {
    /// What kind of failure, for programs.
    pub code: ErrorCode,
    /// What was tried, on what, and why it failed, for people. Lower case, no full stop. Printable, as the hint, whoever
    /// said it: see [`crate::text`].
    #[serde(deserialize_with = "crate::text::read")]
    pub message: String,
    /// Whether the same request may succeed later without anybody changing anything.
    pub retryable: bool,
    /// What to do next, if possible a command to type. Never empty when made by [`WireError::new`].
    #[serde(default, deserialize_with = "crate::text::read")]
    pub hint: String,
}

impl WireError {
    /// An error with the usual hint and the usual answer to "may I retry" of its code.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        let message = made_printable(message);
        Self { code, message, retryable: code.is_retryable(), hint: code.hint().to_owned() }
    }

    /// The same error with a better hint than the code's usual one.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = made_printable(hint);
        self
    }
}

impl fmt::Display for WireError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.message, self.code)
    }
}

impl std::error::Error for WireError {}

/// An error and all its causes in one line, for where a whole chain has to fit in one message. No error of ours repeats
/// its cause, so nothing is said twice.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_has_a_status_and_a_hint() {
        for code in ErrorCode::ALL {
            assert!((400..600).contains(&code.http_status()), "{code}");
            assert!(!code.hint().is_empty(), "{code}");
            assert_eq!(code.as_str().parse::<ErrorCode>().unwrap(), *code);
        }
    }

    #[test]
    fn an_unknown_code_becomes_internal_and_keeps_its_text() {
        let json =
            r#"{"code":"gravity","message":"cannot lift web","retryable":true,"hint":"wait","more":[]}"#;
        let error: WireError = serde_json::from_str(json).unwrap();
        assert_eq!(error.code, ErrorCode::Internal);
        assert_eq!((error.message.as_str(), error.retryable), ("cannot lift web", true));
    }

    #[test]
    fn what_another_site_says_is_printable() {
        let json = r#"{"code":"busy","message":"a\u001b[2Jb","retryable":true,"hint":"x\u202ey"}"#;
        let error: WireError = serde_json::from_str(json).unwrap();
        assert_eq!((error.message.as_str(), error.hint.as_str()), ("a\\u{1b}[2Jb", "x\\u{202e}y"));
        // And so is what we say about a file whose name it chose.
        let error = WireError::new(ErrorCode::ImageRefused, "cannot take in a\u{7}").with_hint("\u{85}");
        assert_eq!((error.message.as_str(), error.hint.as_str()), ("cannot take in a\\u{7}", "\\u{85}"));
    }

    #[test]
    fn errors_survive_the_wire() {
        let error = WireError::new(ErrorCode::PortTaken, "cannot publish 8080/tcp at b").with_hint("ums ps");
        let json = serde_json::to_value(&error).unwrap();
        assert_eq!(json["code"], "port-taken");
        assert_eq!(serde_json::from_value::<WireError>(json).unwrap(), error);
        assert_eq!(error.to_string(), "cannot publish 8080/tcp at b (port-taken)");
    }
}
