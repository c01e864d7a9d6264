//! A history of numbered changes, ten to each document, some of them close together and some far apart; and the account of what a
//! receiver got of it. Pure: knows no server and no HTTP.
//!
//! It depends on std only; a test includes it by `#[path]`.
#![allow(dead_code)] // each test uses the part it needs

/// To one document.
pub const CHANGES_EACH: u64 = 10;
/// How many events lie between two changes of one document: from one right behind the other, which a lane that keeps their order
/// has to hold back, to so many that they are never in flight together. A hundred documents have each of these in turn.
const SPACINGS: [u64; 4] = [1, 4, 25, 100];
/// Changes with one spacing: a multiple of each spacing's ten rounds.
const GROUP: u64 = 1000;

/// What the change with one number is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
    /// Its `_id`.
    pub document: u64,
    /// 0 is the insert, 1 to 9 replace it.
    pub version: u64,
}

impl Change {
    /// The change with this number: written before all that have a higher one.
    pub fn of(number: u64) -> Change {
        let (group, place) = (number / GROUP, number % GROUP);
        let spacing = SPACINGS[(group % SPACINGS.len() as u64) as usize];
        let rounds = spacing * CHANGES_EACH;
        let document = group * (GROUP / CHANGES_EACH) + place / rounds * spacing + place % spacing;
        Change { document, version: place % rounds / spacing }
    }
}

/// What became of a history at a receiver.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Account {
    /// Written, and never came.
    pub missing: u64,
    /// Came before, and again.
    pub repeated: u64,
    /// Came for the first time behind a later change of its document, or left an earlier one out.
    pub disordered: u64,
    /// Never written.
    pub unknown: u64,
}

impl Account {
    /// Of the numbers in the order of their arrival; 0 to `written` were written.
    pub fn of(arrived: impl IntoIterator<Item = u64>, written: u64) -> Account {
        let mut account = Account::default();
        let mut seen = vec![false; written as usize];
        // By document: the version that has to come next.
        let mut next = vec![0; (written.div_ceil(GROUP) * GROUP / CHANGES_EACH) as usize];
        for number in arrived {
            match seen.get_mut(number as usize) {
                None => account.unknown += 1,
                Some(true) => account.repeated += 1,
                Some(seen) => {
                    *seen = true;
                    let Change { document, version } = Change::of(number);
                    let next = &mut next[document as usize];
                    account.disordered += u64::from(version != *next);
                    *next = (version + 1).max(*next);
                }
            }
        }
        account.missing = seen.iter().filter(|seen| !**seen).count() as u64;
        account
    }

    /// All came, in order; some more than once, perhaps.
    pub fn is_whole(&self) -> bool {
        (self.missing, self.disordered, self.unknown) == (0, 0, 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_document_has_ten_changes_in_the_order_of_their_numbers() {
        let written = SPACINGS.len() as u64 * GROUP;
        let mut versions = vec![Vec::new(); (written / CHANGES_EACH) as usize];
        (0..written).map(Change::of).for_each(|change| versions[change.document as usize].push(change.version));
        let expected: Vec<u64> = (0..CHANGES_EACH).collect();
        assert!(versions.iter().all(|found| *found == expected));
        for (number, document, version) in
            [(0, 0, 0), (1, 0, 1), (10, 1, 0), (1001, 101, 0), (1004, 100, 1), (3100, 300, 1)]
        {
            assert_eq!(Change::of(number), Change { document, version }, "{number}");
        }
    }

    #[test]
    fn an_account_tells_what_went_wrong() {
        let account = |missing, repeated, disordered, unknown| Account { missing, repeated, disordered, unknown };
        for (arrived, expected) in [
            (&[0, 1, 2, 3][..], account(0, 0, 0, 0)),
            (&[0, 1, 0, 1, 2, 3], account(0, 2, 0, 0)),
            (&[0, 2, 1, 3], account(0, 0, 2, 0)),
            (&[0, 1, 3], account(1, 0, 1, 0)),
            (&[0, 1, 2], account(1, 0, 0, 0)),
            (&[0, 1, 2, 3, 4], account(0, 0, 0, 1)),
        ] {
            assert_eq!(Account::of(arrived.iter().copied(), 4), expected, "{arrived:?}");
        }
        // Documents are apart: 1000 and 1001 are first changes.
        let swapped = (0..1000).chain([1001, 1000]);
        assert!(Account::of(swapped, 1002).is_whole());
    }
}
