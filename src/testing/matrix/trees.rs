//! The children and subtrees of each item, for one caller.

use serde_json::{Value as Json, json};

use super::MatrixReport;
use super::cases::ResourceCases;
use super::oracle::Row;

impl ResourceCases<'_> {
    /// The listed rows that are direct children of a row.
    fn child_rows<'a>(&'a self, row: &'a Row) -> impl Iterator<Item = &'a Row> {
        let parent = self.entry.definition.tree.map(|tree| &self.entry.schema.fields[tree.parent].name);
        let id = &row[&self.entry.schema.id_field().name];
        self.listed_rows().filter(move |other| parent.is_some_and(|parent| other[parent] == *id))
    }

    /// The status of a row's children, if they are not shown.
    fn hidden_status(&self, row: &Row) -> Option<u16> {
        let is_parent_revealed =
            self.entry.definition.tree.is_some_and(|tree| self.oracle.can_reveal(self.entry, tree.parent));
        match (self.is_closed(), is_parent_revealed && self.oracle.is_readable(self.entry, row)) {
            (true, _) => Some(self.refused_status()),
            (false, false) => Some(404),
            (false, true) => None,
        }
    }

    pub(super) async fn children(&self, report: &mut MatrixReport) {
        let limit = self.entry.definition.max_limit;
        for row in self.rows {
            let path = format!("{}/children?limit={limit}", self.item_path(row));
            let response = self.request("GET", &path).await;
            match self.hidden_status(row) {
                Some(status) => {
                    report.compare(|| self.label(&path), &json!(response.status()), &json!(status));
                }
                None => self.compare_list(&path, &response, Some(self.child_rows(row).collect()), report),
            }
        }
    }

    pub(super) async fn subtrees(&self, report: &mut MatrixReport) {
        for row in self.rows {
            let path = format!("{}/subtree", self.item_path(row));
            let response = self.request("GET", &path).await;
            if let Some(status) = self.hidden_status(row) {
                report.compare(|| self.label(&path), &json!(response.status()), &json!(status));
                continue;
            }
            let (mut level, mut depth, mut expected) = (vec![row], 0, Vec::new());
            while !level.is_empty() && depth < 100 {
                depth += 1;
                level = level.into_iter().flat_map(|ancestor| self.child_rows(ancestor)).collect();
                let shown = level.iter().map(|row| self.oracle.visible_item(self.entry, row));
                expected.extend(shown.map(|item| json!({"depth": depth, "item": item})));
            }
            let mut found = response.items();
            let key = |one: &Json| one.to_string();
            found.sort_by_key(key);
            expected.sort_by_key(key);
            report.compare(|| self.label(&path), &Json::from(found), &Json::from(expected));
        }
    }
}
