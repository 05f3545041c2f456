//! Fits a table into a width: one line a row. Whole columns are dropped, the least needed ones first, and texts are cut with `…`.

use unicode_segmentation::UnicodeSegmentation;
use unicode_width::UnicodeWidthStr;

/// The space between two columns.
pub const GAP: usize = 2;
const CUT: &str = "…";

/// A column of a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Column {
    pub name: &'static str,
    /// The width to which its texts may be cut; 0 if they are shown whole or not at all.
    least: usize,
    /// Where there is no room for all columns, those with the highest number are dropped first.
    drop: u8,
}

impl Column {
    /// A column whose texts are never cut. See [`Column::droppable`].
    pub const fn whole(name: &'static str) -> Self {
        Self { name, least: 0, drop: 0 }
    }

    /// A column whose texts may be cut to `least`.
    pub const fn cut(name: &'static str, least: usize) -> Self {
        Self { name, least, drop: 0 }
    }

    /// The same column, dropped before all with lower numbers.
    pub const fn droppable(self, drop: u8) -> Self {
        Self { drop, ..self }
    }

    /// The narrowest that it can be, if its widest text is this wide.
    fn narrowest(&self, widest: usize) -> usize {
        if self.least == 0 { widest } else { widest.min(self.least.max(self.name.width())) }
    }
}

/// The widths of the columns in a table of width `room`; none for those that are dropped. `widest`: of the texts of each column, its
/// name included.
pub fn widths(columns: &[Column], widest: &[usize], room: usize) -> Vec<Option<usize>> {
    let mut widths: Vec<Option<usize>> = widest.iter().copied().map(Some).collect();
    let narrowest = |widths: &[Option<usize>]| {
        total(columns.iter().zip(widths).filter_map(|(column, width)| Some(column.narrowest((*width)?))))
    };
    while narrowest(&widths) > room {
        let kept = columns.iter().enumerate().filter(|(at, column)| widths[*at].is_some() && column.drop > 0);
        let Some((last, _)) = kept.max_by_key(|(at, column)| (column.drop, *at)) else { break };
        widths[last] = None;
    }
    while total(widths.iter().flatten().copied()) > room {
        // The widest of those that can still be cut: long texts lose before short ones do.
        let cuttable = |at: &usize| widths[*at].is_some_and(|width| width > columns[*at].narrowest(widest[*at]));
        let Some(at) = (0..columns.len()).filter(cuttable).max_by_key(|at| widths[*at]) else { break };
        widths[at] = widths[at].map(|width| width - 1);
    }
    widths
}

fn total(widths: impl Iterator<Item = usize>) -> usize {
    widths.map(|width| width + GAP).sum::<usize>().saturating_sub(GAP)
}

/// `text`, or as much of its start as fits into `width` with an ellipsis. Characters that are shown as one stay together.
pub fn cut(text: &str, width: usize) -> String {
    if text.width() <= width {
        return text.to_owned();
    }
    let mut kept = String::new();
    for part in text.graphemes(true) {
        if kept.width() + part.width() + CUT.width() > width {
            break;
        }
        kept.push_str(part);
    }
    kept.truncate(kept.trim_end().len());
    if width == 0 { kept } else { kept + CUT }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const COLUMNS: [Column; 4] = [
        Column::cut("NAME", 8),
        Column::whole("ID").droppable(2),
        Column::whole("STATUS").droppable(1),
        Column::cut("SUMMARY", 10).droppable(3),
    ];

    #[test]
    fn columns_are_cut_before_they_are_dropped() {
        let widest = [12, 6, 9, 60];
        assert_eq!(widths(&COLUMNS, &widest, 200), [Some(12), Some(6), Some(9), Some(60)]);
        assert_eq!(widths(&COLUMNS, &widest, 60), [Some(12), Some(6), Some(9), Some(27)]);
        assert_eq!(widths(&COLUMNS, &widest, 35), [Some(12), Some(6), Some(9), None]);
        assert_eq!(widths(&COLUMNS, &widest, 20), [Some(9), None, Some(9), None]);
        assert_eq!(widths(&COLUMNS, &widest, 5), [Some(8), None, None, None]);
    }

    proptest! {
        #[test]
        fn cut_text_fits_and_is_a_start(text in "[a-z 漢字é👩🏽‍💻]{0,40}", width in 1_usize..30) {
            let cut = cut(&text, width);
            prop_assert!(cut.width() <= width, "{cut:?}");
            prop_assert!(text.starts_with(cut.trim_end_matches(CUT)), "{cut:?}");
        }

        #[test]
        fn kept_columns_fit(widest in prop::array::uniform4(4_usize..80), room in 10_usize..200) {
            let widths = widths(&COLUMNS, &widest, room);
            prop_assert!(widths[0].is_some() && total(widths.iter().flatten().copied()) <= room, "{widths:?}");
        }
    }
}
