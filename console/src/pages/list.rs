//! What a table shows is in its URL: the filter, the order, the page.

use std::cmp::Ordering;

use model::draft::Kind;
use serde::Deserialize;

use crate::ops::{self, MAX_PER_PAGE, Ops, OpsError, Sort, Stored, grouped};

/// Rows on one page.
pub(crate) const PAGE: usize = 100;

/// The query of a table's URL.
#[derive(Debug, Clone, Default, Deserialize)]
pub(crate) struct ListQuery {
    #[serde(default)]
    q: String,
    #[serde(default)]
    sort: String,
    #[serde(default)]
    dir: String,
    #[serde(default)]
    page: String,
}

/// A table's state, for the template.
#[derive(Debug, Clone, Default)]
pub(crate) struct List {
    /// The page's path.
    pub(crate) path: String,
    /// The filter as typed.
    pub(crate) q: String,
    /// The column it is sorted by; empty for the page's own order.
    pub(crate) sort: String,
    /// Largest first.
    pub(crate) desc: bool,
    /// From 1.
    pub(crate) page: usize,
    /// How many there are; at least 1.
    pub(crate) pages: usize,
    /// Rows that the filter lets through.
    pub(crate) total: usize,
    /// Few enough that any column can be sorted by; otherwise the database sorts by name.
    pub(crate) complete: bool,
}

impl ListQuery {
    /// What the filter asks for, in lower case.
    pub(crate) fn needle(&self) -> String {
        self.q.trim().to_lowercase()
    }

    /// The page asked for, from 1; nonsense is 1.
    pub(crate) fn page(&self) -> usize {
        self.page.parse().ok().filter(|page| *page > 0).unwrap_or(1)
    }

    /// Largest first.
    pub(crate) fn desc(&self) -> bool {
        self.dir == "desc"
    }

    /// Filters, sorts and cuts `rows`; `text` is what the filter looks at, `order` compares by the column asked for.
    pub(crate) fn apply<T>(
        &self,
        path: &str,
        mut rows: Vec<T>,
        text: impl Fn(&T) -> String,
        order: impl Fn(&str, &T, &T) -> Ordering,
    ) -> (List, Vec<T>) {
        let needle = self.needle();
        if !needle.is_empty() {
            rows.retain(|row| needle.split_whitespace().all(|word| text(row).to_lowercase().contains(word)));
        }
        let total = rows.len();
        self.arrange(path, rows, total, true, order)
    }

    /// Fetches objects: all that the filter lets through while they are few, one page of them when they are many.
    pub(crate) async fn fetch(&self, ops: &Ops, kind: Kind) -> Result<Found, OpsError> {
        let sort = match self.desc() && self.sort == "name" {
            true => Sort::NameDown,
            false => Sort::Name,
        };
        let query = |page: usize, per_page: u32| ops::ListQuery {
            kind: Some(kind),
            name: None,
            search: self.q.clone(),
            sort,
            page: u32::try_from(page).unwrap_or(u32::MAX),
            per_page,
        };
        let one = ops.list(&query(self.page(), PAGE as u32)).await?;
        let total = usize::try_from(one.total).unwrap_or(usize::MAX);
        let complete = total <= MAX_PER_PAGE as usize;
        let items = if complete && (total > PAGE || self.page() > 1) {
            ops.list(&query(1, MAX_PER_PAGE)).await?.items
        } else {
            one.items
        };
        Ok(Found { items, total, complete })
    }

    /// Sorts and cuts what [`ListQuery::fetch`] found; one page of many stays as the database sorted it.
    pub(crate) fn arrange<T>(
        &self,
        path: &str,
        mut rows: Vec<T>,
        total: usize,
        complete: bool,
        order: impl Fn(&str, &T, &T) -> Ordering,
    ) -> (List, Vec<T>) {
        let pages = total.div_ceil(PAGE).max(1);
        let list = List {
            path: path.to_owned(),
            q: self.q.clone(),
            sort: self.sort.clone(),
            desc: self.desc(),
            page: self.page().min(pages),
            pages,
            total,
            complete,
        };
        if complete {
            rows.sort_by(|a, b| if self.desc() { order(&self.sort, b, a) } else { order(&self.sort, a, b) });
            rows = rows.into_iter().skip((list.page - 1) * PAGE).take(PAGE).collect();
        }
        (list, rows)
    }
}

/// Objects for a table.
pub(crate) struct Found {
    pub(crate) items: Vec<Stored>,
    /// How many the filter lets through.
    pub(crate) total: usize,
    /// Whether `items` are all of them.
    pub(crate) complete: bool,
}

impl List {
    /// Whether the script may sort in place: every row is on the page.
    pub(crate) fn whole(&self) -> bool {
        self.pages == 1
    }

    /// Whether there is nothing at all, filter or not.
    pub(crate) fn nothing(&self) -> bool {
        self.total == 0 && self.q.is_empty()
    }

    /// `12`, or `3 match` under a filter.
    pub(crate) fn words(&self) -> String {
        let total = number(self.total);
        if self.q.is_empty() { total } else { format!("{total} match") }
    }

    /// Whether the table can be sorted by a column.
    pub(crate) fn sortable(&self, key: &str) -> bool {
        self.complete || key == "name"
    }

    pub(crate) fn dir(&self) -> &'static str {
        if self.desc { "desc" } else { "asc" }
    }

    pub(crate) fn sorted_by(&self, key: &str) -> bool {
        self.sort == key
    }

    fn first(&self) -> usize {
        (self.page - 1) * PAGE + 1
    }

    fn last(&self) -> usize {
        (self.page * PAGE).min(self.total)
    }

    /// `1,001 to 1,100 of 2,000`.
    pub(crate) fn span(&self) -> String {
        format!("{} to {} of {}", number(self.first()), number(self.last()), number(self.total))
    }

    /// Where a column's header leads: the other way round, or what one looks for first, which of `figures` is the largest.
    pub(crate) fn sort_url(&self, key: &str, figures: bool) -> String {
        let desc = if self.sorted_by(key) { !self.desc } else { figures };
        let dir = if desc { "desc" } else { "asc" };
        self.url(&[("sort", key), ("dir", dir)])
    }

    pub(crate) fn page_url(&self, page: usize) -> String {
        let page = page.to_string();
        match self.sort.is_empty() {
            true => self.url(&[("page", &page)]),
            false => self.url(&[("sort", &self.sort), ("dir", self.dir()), ("page", &page)]),
        }
    }

    fn url(&self, pairs: &[(&str, &str)]) -> String {
        let filter = (!self.q.is_empty()).then_some(("q", self.q.as_str()));
        let query: Vec<String> =
            filter.iter().chain(pairs).map(|(key, value)| format!("{key}={}", escape(value))).collect();
        format!("{}?{}", self.path, query.join("&"))
    }
}

fn number(of: usize) -> String {
    grouped(&of.to_string())
}

/// Percent-encodes all but unreserved characters.
pub(crate) fn escape(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                char::from(byte).to_string()
            }
            other => format!("%{other:02X}"),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query(q: &str, sort: &str, dir: &str, page: &str) -> ListQuery {
        ListQuery { q: q.to_owned(), sort: sort.to_owned(), dir: dir.to_owned(), page: page.to_owned() }
    }

    #[test]
    fn filter_order_and_page() {
        let rows: Vec<u32> = (0..250).collect();
        let apply = |query: &ListQuery| query.apply("/x", rows.clone(), u32::to_string, |_, a, b| a.cmp(b));
        let (list, page) = apply(&query("", "n", "desc", "2"));
        assert_eq!((list.pages, list.first(), list.last(), page.first()), (3, 101, 200, Some(&149)));
        assert_eq!(list.page_url(3), "/x?sort=n&dir=desc&page=3");
        assert_eq!(list.sort_url("n", true), "/x?sort=n&dir=asc");
        assert_eq!(list.sort_url("m", true), "/x?sort=m&dir=desc");
        let (list, page) = apply(&query("24 9", "", "", "99"));
        assert_eq!((list.page, list.total, page), (1, 1, vec![249]));
        assert!(list.whole());
        assert_eq!(list.sort_url("n", false), "/x?q=24%209&sort=n&dir=asc");
    }

    #[test]
    fn figures_are_set_apart() {
        let rows: Vec<u32> = (0..12_345).collect();
        let apply =
            |q| query(q, "", "", "13").apply("/x", rows.clone(), u32::to_string, |_, a, b| a.cmp(b)).0;
        let (all, some) = (apply(""), apply("1"));
        assert_eq!((all.words().as_str(), all.span().as_str()), ("12,345", "1,201 to 1,300 of 12,345"));
        assert_eq!(some.words(), "5,784 match");
    }

    #[test]
    fn nonsense_is_the_first_page() {
        for page in ["", "0", "-1", "x", "99999999999999999999999"] {
            assert_eq!(query("", "", "", page).page(), 1);
        }
    }
}
