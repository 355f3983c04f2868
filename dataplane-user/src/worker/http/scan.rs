//! Finds the end of a head or trailer section, under any split of its bytes, and refuses line ends that two parsers
//! could read differently. httparse takes a bare LF for a line end; some servers do not, and that difference is a
//! smuggled request.

/// Where the scan of one section stands.
#[derive(Debug, Clone, Copy, Default)]
pub struct Scan {
    at: usize,
    line: usize,
    start: usize,
    lines: usize,
}

/// Why a section is refused before it is parsed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unscannable {
    /// A LF without CR before it.
    BareLf,
    /// More than one empty line before a start line.
    EmptyLines,
    /// Longer than allowed, and its first line already is.
    FirstLineTooLong,
    /// Longer than allowed.
    TooLong,
}

impl Scan {
    /// Looks at what has come since the last call. Answers the section's range when its end is there: one empty line
    /// before it is left out (RFC 9112, 2.2). The answer depends on the bytes alone, never on how they were split.
    pub fn head(
        &mut self,
        bytes: &[u8],
        limit: usize,
    ) -> Result<Option<std::ops::Range<usize>>, Unscannable> {
        while let Some(found) =
            bytes.get(self.at..).and_then(|rest| rest.iter().position(|byte| *byte == b'\n'))
        {
            let lf = self.at + found;
            if lf >= limit {
                return Err(self.too_long());
            }
            if lf == 0 || bytes.get(lf - 1) != Some(&b'\r') {
                return Err(Unscannable::BareLf);
            }
            let empty = lf - self.line == 1;
            self.at = lf + 1;
            self.line = lf + 1;
            match (empty, self.lines) {
                (true, 0) if self.start == 0 => self.start = lf + 1,
                (true, 0) => return Err(Unscannable::EmptyLines),
                (true, _) => return Ok(Some(self.start..lf + 1)),
                (false, _) => self.lines += 1,
            }
        }
        self.at = bytes.len();
        if bytes.len() > limit { Err(self.too_long()) } else { Ok(None) }
    }

    /// As [`Scan::head`], for a section that may be empty: trailers.
    pub fn trailers(&mut self, bytes: &[u8], limit: usize) -> Result<Option<usize>, Unscannable> {
        if bytes.starts_with(b"\r\n") {
            return Ok(Some(2));
        }
        if bytes.first().is_none_or(|byte| *byte == b'\r') && bytes.len() < 2 {
            return Ok(None);
        }
        Ok(self.head(bytes, limit)?.map(|range| range.end))
    }

    fn too_long(&self) -> Unscannable {
        if self.lines == 0 { Unscannable::FirstLineTooLong } else { Unscannable::TooLong }
    }
}
