//! `session show --dialogue` and `session watch`: what is said, as it is said.

use std::io::Write;

use mailroot_common::control::{DialogueLine, Direction, Problem, Selector, Session, Spoken, path};

use crate::change::with_query;
use crate::io_problem;
use crate::output::{Cell, Column, Form, List, Row, Shape, clock_time, escape};
use crate::tool::{Tool, stdout};

/// Prints lines until the chosen sessions end, or the person has seen enough. `of` is the session that
/// all of them belong to, if it is one.
pub(crate) async fn follow(
    tool: &mut Tool,
    selector: &Selector,
    of: Option<&Session>,
) -> Result<u8, Problem> {
    let shape = tool.shape.clone();
    let (mut out, path) = (stdout(), with_query(path::SESSIONS_DIALOGUE, selector));
    if !matches!(shape.form, Form::Table | Form::Wide) || shape.columns.is_some() {
        let mut list = List::begin(&shape, &mut out)?;
        let take = |line: DialogueLine| {
            list.push(line).and_then(|()| list.flush()).map_err(io_problem)?;
            Ok(!list.is_full())
        };
        tool.daemon().await?.lines(&path, take).await?;
        list.finish().map_err(io_problem)?;
        return Ok(0);
    }
    let mut printed = 0;
    let take = |line: DialogueLine| {
        let text = for_people(&line, of.is_none(), &shape);
        out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(io_problem)?;
        printed += 1;
        Ok(shape.limit.is_none_or(|limit| printed < limit))
    };
    tool.daemon().await?.lines(&path, take).await?;
    Ok(0)
}

/// A line with who said it; with its session where there may be several.
fn for_people(line: &DialogueLine, names_session: bool, shape: &Shape) -> String {
    let session = match (names_session, line.direction) {
        (false, _) => String::new(),
        (true, Direction::In) => format!("{}  {:<21}  ", line.id, line.peer),
        (true, Direction::Out) => format!("{}  {:<21}  ", line.id, format!(">{}", line.peer)),
    };
    let time = clock_time(line.at, shape.now, shape.utc);
    let begin = escape(&format!("{time}  {session}"));
    let lost = match line.lost {
        0 => String::new(),
        lost => {
            format!("{begin}   {lost} lines were lost: they came faster than they were taken\n")
        }
    };
    let said = escape(line.text.as_deref().unwrap_or_default());
    let octets = line.octets.unwrap_or_default();
    let words = match line.what {
        Spoken::Client => format!("C: {said}"),
        Spoken::Server => format!("S: {said}"),
        Spoken::Body => format!("   {octets} octets of a message"),
        Spoken::End => "   the session has ended".to_owned(),
    };
    format!("{lost}{begin}{words}\n")
}

impl Row for DialogueLine {
    const COLUMNS: &'static [Column<Self>] = &[
        Column::always("at", |it| Cell::text(it.at.to_string())),
        Column::always("id", |it| Cell::text(it.id.to_string())),
        Column::always("server", |it| Cell::text(&*it.server)),
        Column::always("dir", |it| Cell::text(it.direction.to_string())),
        Column::always("peer", |it| Cell::text(&*it.peer)),
        Column::always("what", |it| {
            Cell::text(match it.what {
                Spoken::Client => "client",
                Spoken::Server => "server",
                Spoken::Body => "body",
                Spoken::End => "end",
            })
        }),
        Column::always("text", |it| Cell::maybe(it.text.as_deref())),
        Column::always("octets", |it| it.octets.map_or(Cell::Nothing, Cell::Count)),
        Column::always("lost", |it| Cell::Count(it.lost)),
    ];

    fn id(&self) -> String {
        self.id.to_string()
    }
}

#[cfg(test)]
mod tests {
    use mailroot_common::id::SessionId;
    use mailroot_common::units::Timestamp;

    use super::*;

    #[test]
    fn people_see_who_said_what_and_what_was_lost() {
        let mut line = DialogueLine {
            at: Timestamp::parse("2026-11-25T09:00:00.123Z").unwrap(),
            id: SessionId::parse("7QK2M9").unwrap(),
            server: "default".to_owned(),
            direction: Direction::Out,
            peer: "192.0.2.1:25".to_owned(),
            what: Spoken::Client,
            text: Some("QUIT\u{1b}".to_owned()),
            octets: None,
            lost: 2,
        };
        let shape = Shape { utc: true, now: line.at, ..Shape::default() };
        assert_eq!(
            for_people(&line, false, &shape),
            "09:00:00     2 lines were lost: they came faster than they were taken\n\
             09:00:00  C: QUIT\\x1b\n"
        );
        (line.what, line.text, line.octets, line.lost) = (Spoken::Body, None, Some(12), 0);
        let text = for_people(&line, true, &shape);
        assert_eq!(text, "09:00:00  7QK2M9  >192.0.2.1:25             12 octets of a message\n");
    }
}
