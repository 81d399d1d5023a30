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
        Endpoint::Action(action_ref) => {
            let action = &definition.actions[action_ref.position].name;
            match action_ref.target {
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
    let with_article = format!("{} {one}", article(&one));
    match endpoint {
        Endpoint::List => format!("List {many}"),
        Endpoint::Query => format!("List {many} by a body (QUERY)"),
        Endpoint::QueryPost => format!("List {many} by a body"),
        Endpoint::Create => format!("Create {with_article}"),
        Endpoint::Read => format!("Read {with_article}"),
        Endpoint::Update => format!("Change fields of {with_article}"),
        Endpoint::Replace => format!("Replace {with_article}"),
        Endpoint::Delete => format!("Delete {with_article}"),
        Endpoint::Stream => format!("Follow the changes of {many}"),
        Endpoint::History => format!("Read the history of {with_article}"),
        Endpoint::Children => format!("List the {many} directly below {with_article}"),
        Endpoint::Subtree => format!("Read everything below {with_article}"),
        Endpoint::BulkCreate => format!("Create many {many}"),
        Endpoint::BulkUpdate => format!("Change many {many}"),
        Endpoint::BulkDelete => format!("Delete many {many}"),
        Endpoint::Action(action_ref) => {
            let words = definition.actions[action_ref.position].name.replace(['_', '-'], " ");
            match action_ref.target {
                Target::Item => format!("{} {with_article}", capitalized(&words)),
                Target::Collection => format!("{} {many}", capitalized(&words)),
            }
        }
    }
}

/// The indefinite article of a word, by its first letter.
fn article(word: &str) -> &'static str {
    // "A user", "a unit": the first letter is pronounced as a consonant.
    let is_vowel = word.starts_with(['a', 'e', 'i', 'o', 'u']);
    let has_consonant_sound = ["uni", "use", "usa", "uti", "eu"].iter().any(|start| word.starts_with(start));
    if is_vowel && !has_consonant_sound { "an" } else { "a" }
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
pub(super) fn action_schema_name(title: &str, action: &str, suffix: &str) -> String {
    format!("{title}_{}{suffix}", pascal(action))
}
