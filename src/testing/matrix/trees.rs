//! The children and subtrees of each item, for one caller.

use serde_json::{Value as Json, json};

use super::MatrixReport;
use super::cases::Site;
use super::oracle::Row;

impl Site<'_> {
    /// The listed rows that are direct children of a row.
    fn below<'a>(&'a self, row: &'a Row) -> impl Iterator<Item = &'a Row> {
        let parent = self.entry.definition.tree.map(|tree| &self.entry.schema.fields[tree.parent].name);
        let id = &row[&self.entry.schema.id_field().name];
        self.listed().filter(move |other| parent.is_some_and(|parent| other[parent] == *id))
    }

    /// The status of a row's children, if they are not shown.
    fn hides_below(&self, row: &Row) -> Option<u16> {
        let tells = self.entry.definition.tree.is_some_and(|tree| self.oracle.tells(self.entry, tree.parent));
        match (self.is_closed(), tells && self.oracle.sees(self.entry, row)) {
            (true, _) => Some(self.refused()),
            (false, false) => Some(404),
            (false, true) => None,
        }
    }

    pub(super) async fn children(&self, report: &mut MatrixReport) {
        let limit = self.entry.definition.max_limit;
        for row in self.rows {
            let path = format!("{}/children?limit={limit}", self.item(row));
            let answer = self.ask("GET", &path).await;
            match self.hides_below(row) {
                Some(status) => report.compare(|| self.about(&path), &json!(answer.status()), &json!(status)),
                None => self.compare_list(&path, &answer, Some(self.below(row).collect()), report),
            }
        }
    }

    pub(super) async fn subtrees(&self, report: &mut MatrixReport) {
        for row in self.rows {
            let path = format!("{}/subtree", self.item(row));
            let answer = self.ask("GET", &path).await;
            if let Some(status) = self.hides_below(row) {
                report.compare(|| self.about(&path), &json!(answer.status()), &json!(status));
                continue;
            }
            let (mut level, mut depth, mut expected) = (vec![row], 0, Vec::new());
            while !level.is_empty() && depth < 100 {
                depth += 1;
                level = level.into_iter().flat_map(|above| self.below(above)).collect();
                let shown = level.iter().map(|row| self.oracle.shown(self.entry, row));
                expected.extend(shown.map(|item| json!({"depth": depth, "item": item})));
            }
            let mut found = answer.items();
            let key = |one: &Json| one.to_string();
            found.sort_by_key(key);
            expected.sort_by_key(key);
            report.compare(|| self.about(&path), &Json::from(found), &Json::from(expected));
        }
    }
}
