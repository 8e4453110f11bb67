//! The system's clipboard on a thread of its own: the call may block, and on X11 and Wayland whoever copied
//! must stay to hand the text out. The thread starts with the first copy and ends when this is dropped.

use std::sync::mpsc;
use std::time::Duration;
use tokio::sync::oneshot;

/// The thread's name: a panic on it is an error of the copy, not the end of the program.
pub(in crate::runtime) const THREAD: &str = "clipboard";
/// How long the clipboard may take.
const LIMIT: Duration = Duration::from_secs(1);
/// How long the way out waits for the text to be handed to a clipboard manager.
const HANDOVER: Duration = Duration::from_millis(300);

type Job = (String, oneshot::Sender<Result<(), String>>);

/// A handle on the thread.
#[derive(Debug, Default)]
pub(super) struct SystemClipboard {
    thread: Option<Thread>,
}

#[derive(Debug)]
struct Thread {
    jobs: mpsc::Sender<Job>,
    ended: mpsc::Receiver<()>,
}

impl SystemClipboard {
    /// Puts the text on the clipboard.
    ///
    /// # Errors
    /// One line: there is none, or it does not answer.
    pub(super) async fn set(&mut self, text: &str) -> Result<(), String> {
        let (answer, answered) = oneshot::channel();
        // Where the thread has ended, `answered` says so.
        let _ = self.thread()?.jobs.send((text.to_owned(), answer));
        let trouble = match tokio::time::timeout(LIMIT, answered).await {
            Ok(Ok(result)) => return result,
            Ok(Err(_)) => "the clipboard has failed",
            Err(_) => "the clipboard does not answer",
        };
        // A thread that hangs is left alone; the next copy gets another one.
        self.thread = None;
        Err(trouble.to_owned())
    }

    fn thread(&mut self) -> Result<&Thread, String> {
        let thread = match self.thread.take() {
            Some(thread) => thread,
            None => {
                let (jobs, todo) = mpsc::channel();
                let (ending, ended) = mpsc::channel();
                std::thread::Builder::new()
                    .name(THREAD.to_owned())
                    .spawn(move || {
                        serve(&todo);
                        let _ = ending.send(());
                    })
                    .map_err(|error| format!("no thread for the clipboard: {error}"))?;
                Thread { jobs, ended }
            }
        };
        Ok(self.thread.insert(thread))
    }
}

impl Drop for SystemClipboard {
    fn drop(&mut self) {
        if let Some(Thread { jobs, ended }) = self.thread.take() {
            drop(jobs);
            let _ = ended.recv_timeout(HANDOVER);
        }
    }
}

fn serve(jobs: &mpsc::Receiver<Job>) {
    let mut clipboard = None;
    while let Ok((text, answer)) = jobs.recv() {
        let result = match clipboard.take().map_or_else(arboard::Clipboard::new, Ok) {
            Ok(mut found) => {
                let result = found.set_text(text).map_err(|error| first_line(&error));
                clipboard = Some(found);
                result
            }
            Err(error) => Err(first_line(&error)),
        };
        let _ = answer.send(result);
    }
}

fn first_line(error: &arboard::Error) -> String {
    error.to_string().lines().next().unwrap_or_default().to_owned()
}
