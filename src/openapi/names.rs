//! Names of components, and of operations with their summaries.

use crate::catalog::Entry;
use crate::http::Endpoint;
use crate::resource::Target;

/// The operation id of an endpoint: `list_countries`, `create_country`.
pub(super) fn operation_id(entry: &Entry, endpoint: Endpoint) -> String {
    let definition = &entry.definition;
    let (many, one) = (definition.name(), definition.singular.as_str());
    match endpoint {
        Endpoint::List => format!("list_{many}"),
        Endpoint::Query => format!("query_{many}"),
        Endpoint::QueryPost => format!("post_query_{many}"),
        Endpoint::Create => format!("create_{one}"),
        Endpoint::Read => format!("read_{one}"),
        Endpoint::Update => format!("update_{one}"),
        Endpoint::Replace => format!("replace_{one}"),
        Endpoint::Delete => format!("delete_{one}"),
        Endpoint::Stream => format!("stream_{many}"),
        Endpoint::History => format!("history_of_{one}"),
        Endpoint::Children => format!("children_of_{one}"),
        Endpoint::Subtree => format!("subtree_of_{one}"),
        Endpoint::BulkCreate => format!("bulk_create_{many}"),
        Endpoint::BulkUpdate => format!("bulk_update_{many}"),
        Endpoint::BulkDelete => format!("bulk_delete_{many}"),
        Endpoint::Action(acted) => {
            let action = &definition.actions[acted.position].name;
            match acted.target {
                Target::Item => format!("{action}_{one}"),
                Target::Collection => format!("{action}_{many}"),
            }
        }
    }
}

/// The summary of an endpoint: "Create a country".
pub(super) fn summary(entry: &Entry, endpoint: Endpoint) -> String {
    let definition = &entry.definition;
    let many = definition.name().replace(['_', '-'], " ");
    let one = definition.singular.replace(['_', '-'], " ");
    let an = format!("{} {one}", article(&one));
    match endpoint {
        Endpoint::List => format!("List {many}"),
        Endpoint::Query => format!("List {many} by a body (QUERY)"),
        Endpoint::QueryPost => format!("List {many} by a body"),
        Endpoint::Create => format!("Create {an}"),
        Endpoint::Read => format!("Read {an}"),
        Endpoint::Update => format!("Change fields of {an}"),
        Endpoint::Replace => format!("Replace {an}"),
        Endpoint::Delete => format!("Delete {an}"),
        Endpoint::Stream => format!("Follow the changes of {many}"),
        Endpoint::History => format!("Read the history of {an}"),
        Endpoint::Children => format!("List the {many} directly below {an}"),
        Endpoint::Subtree => format!("Read everything below {an}"),
        Endpoint::BulkCreate => format!("Create many {many}"),
        Endpoint::BulkUpdate => format!("Change many {many}"),
        Endpoint::BulkDelete => format!("Delete many {many}"),
        Endpoint::Action(acted) => {
            let words = definition.actions[acted.position].name.replace(['_', '-'], " ");
            match acted.target {
                Target::Item => format!("{} {an}", capitalized(&words)),
                Target::Collection => format!("{} {many}", capitalized(&words)),
            }
        }
    }
}

/// The indefinite article of a word, by its first letter.
fn article(word: &str) -> &'static str {
    // "A user", "a unit": the first letter is pronounced as a consonant.
    let is_vowel = word.starts_with(['a', 'e', 'i', 'o', 'u']);
    let is_you = ["uni", "use", "usa", "uti", "eu"].iter().any(|start| word.starts_with(start));
    if is_vowel && !is_you { "an" } else { "a" }
}

fn capitalized(words: &str) -> String {
    let mut characters = words.chars();
    characters.next().map(char::to_uppercase).into_iter().flatten().chain(characters).collect()
}

/// `order_line` and `order line` as `OrderLine`; letters beyond ASCII are removed, since component names cannot contain
/// them.
pub(super) fn pascal(name: &str) -> String {
    let words = name.split(|character: char| !character.is_alphanumeric()).map(capitalized);
    let name: String =
        words.flat_map(|word| word.chars().filter(char::is_ascii_alphanumeric).collect::<Vec<_>>()).collect();
    if name.is_empty() { "Item".to_owned() } else { name }
}

/// The component name of an action's input or output. No title contains an underscore.
pub(super) fn of_action(title: &str, action: &str, suffix: &str) -> String {
    format!("{title}_{}{suffix}", pascal(action))
}
