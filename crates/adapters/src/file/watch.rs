//! What the end of a file means: its real end, a pause, a rotation, or a cut.

use super::content::Packing;
use super::identity::{IDENTITY_BYTES_MAX, Sameness};
use super::reader::{Fault, FileReader, Next, read_at_most};
use super::rotation;
use std::fs::Metadata;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::time::Instant;

impl FileReader {
    /// Called where the stream has nothing more now.
    pub(super) fn at_end(&mut self) -> Result<Next, Fault> {
        if !self.follow {
            self.check_not_cut()?;
            return Ok(if self.unfinished_is_line() { Next::Line } else { Next::Drained });
        }
        if self.stream_ended && !self.stream_incomplete && self.unfinished_is_line() {
            // A compressed file that ends as it should also ends its last line.
            return Ok(Next::Line);
        }
        if self.looked_at.is_some_and(|at| at.elapsed() < self.poll_interval) {
            return Ok(Next::Nothing);
        }
        self.looked_at = Some(Instant::now());
        let own = self.check_not_cut()?;
        if self.stream_ended && own.len() > self.file_bytes_seen {
            return self.read_on_compressed(own.len());
        }
        self.file_bytes_seen = own.len();
        match self.target.path.metadata() {
            Ok(there) if (there.dev(), there.ino()) == (own.dev(), own.ino()) => {
                self.rotated_at = None;
                Ok(Next::Nothing)
            }
            Ok(there) => self.after_rotation(&own, &there),
            Err(e) if e.kind() == io::ErrorKind::NotFound && !self.alone => self.finish_if_settled(),
            Err(_) => Ok(Next::Nothing),
        }
    }

    fn unfinished_is_line(&mut self) -> bool {
        !self.last_line_decided && self.lines.finish_unfinished()
    }

    /// Fails where the file has become shorter than it was, or begins otherwise.
    fn check_not_cut(&mut self) -> Result<Metadata, Fault> {
        let shown = self.target.path.display();
        let away = |e: io::Error| Fault::Away(format!("file {shown} can't be looked at: {e}"));
        let own = self.file.metadata().map_err(away)?;
        let read = match self.packing {
            Packing::Plain => self.lines.line_start() + self.lines.unfinished_bytes(),
            _ => 0,
        };
        let longest = self.file_bytes_seen.max(read);
        if own.len() < longest {
            return Err(Fault::Changed(format!(
                "file {shown} was cut short while it was read, from {longest} bytes to {}: an unknown number \
                 of lines may be lost; rotate by renaming instead of copytruncate, and run with --again to \
                 read what is there now as a new incarnation",
                own.len()
            )));
        }
        let mut head = [0; IDENTITY_BYTES_MAX];
        let head_bytes = read_at_most(&self.file, &mut head[..self.id.bytes], 0).map_err(away)?;
        if self.id.compare(&head[..head_bytes]) != Sameness::Same {
            return Err(Fault::Changed(format!(
                "file {shown} was rewritten while it was read: its first bytes are others now, and an unknown \
                 number of lines may be lost; run with --again to read it as a new incarnation"
            )));
        }
        Ok(own)
    }

    fn read_on_compressed(&mut self, file_bytes: u64) -> Result<Next, Fault> {
        self.file_bytes_seen = file_bytes;
        self.stream_ended = false;
        self.stream_incomplete = false;
        self.seek_to_line().map_err(|e| Fault::Broken(e.to_string()))?;
        Ok(Next::Nothing)
    }

    /// Another file stands at the path.
    fn after_rotation(&mut self, own: &Metadata, there: &Metadata) -> Result<Next, Fault> {
        if there.len() == 0 {
            return Ok(Next::Nothing);
        }
        let shown = self.target.path.display();
        let Some(since) = self.rotated_at else {
            let renamed = own.nlink() > 0
                || rotation::compressed_predecessor(&self.target.path, &self.id)
                    .map_err(|e| Fault::Away(format!("beside file {shown}: {e}")))?
                    .is_some();
            if !renamed {
                return Err(Fault::Changed(format!(
                    "file {shown} was replaced by another one, and the one before was deleted, not renamed: \
                     lines written to it after line {} may be lost; run with --again to read the new one as a \
                     new incarnation",
                    self.next_offset
                )));
            }
            self.rotated_at = Some(Instant::now());
            return Ok(Next::Nothing);
        };
        // Its writer may still hold the old file open for a moment.
        if since.elapsed() < self.poll_interval * 2 {
            return Ok(Next::Nothing);
        }
        self.finish_if_settled()
    }

    /// The file is complete: what is after its last newline is a line, and once all is settled it is done.
    fn finish_if_settled(&mut self) -> Result<Next, Fault> {
        if self.stream_incomplete {
            return Err(self.damage(&io::ErrorKind::UnexpectedEof.into()));
        }
        if self.unfinished_is_line() {
            return Ok(Next::Line);
        }
        if self.settled.next_offset() < self.next_offset {
            return Ok(Next::Nothing);
        }
        self.shared.update(&self.target.partition, &self.target.source, |current| current.finished = true);
        Ok(Next::Drained)
    }
}
