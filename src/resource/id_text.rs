//! Ids as text.

use resourceful_contract::Value;

/// An id as it is written in a path.
pub(crate) fn id_text(id: &Value) -> String {
    match id {
        Value::Text(text) => text.clone(),
        other => {
            let mut json = Vec::new();
            resourceful_contract::json::value(&mut json, other);
            String::from_utf8_lossy(&json).trim_matches('"').to_owned()
        }
    }
}
