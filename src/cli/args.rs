//! What can be typed after `tui`. Definitions only.

use super::backends::BackendsArgs;
#[cfg(feature = "local")]
use super::engine::EngineCommand;
#[cfg(feature = "local")]
use super::serve::ServeArgs;
use crate::chat::Sampling;
use clap::{Args, Parser, Subcommand, ValueEnum};
use std::fmt::Display;
use std::path::PathBuf;
use std::str::FromStr;

const EXAMPLES: &str = "\
Examples:
  tui                                          open the interface
  tui \"What does EAGAIN mean?\"                 one answer on stdout
  git diff | tui \"Write a commit message\"      stdin is added to the question
  tui -f src/main.rs --prompt review \"Anything wrong?\"
  tui -m ~/models/qwen.gguf \"Hello\"            a model file
  tui backends add mac ssh://studio.local      another machine, over SSH
  tui --on mac -m llama3.3-70b \"Hello\"         a model on it
  tui -c \"And in Rust?\"                        go on with the last conversation
  tui \"List three colours\" --json | jq -r '.answers[0].text'

Exit codes: 0 done, 1 error, 2 wrong usage or configuration, 3 backend unreachable or refused,
4 model missing or can't be loaded, 5 does not fit the context, 124 timed out, 130 interrupted.";

/// A terminal chat client for local language models.
///
/// Without a question, in a terminal, it opens the interface. With one it prints the answer and nothing
/// else on stdout.
#[derive(Debug, Parser)]
#[command(name = "tui", version, after_help = EXAMPLES, disable_help_subcommand = true, max_term_width = 100)]
pub(super) struct Cli {
    #[command(flatten)]
    pub(super) ask: AskArgs,
    /// Configuration file to use instead of the usual one
    #[arg(long, value_name = "FILE", global = true, help_heading = "Everywhere")]
    pub(super) config: Option<PathBuf>,
    #[command(subcommand)]
    pub(super) command: Option<Command>,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// The engine of this machine: the process that loads models
    #[cfg(feature = "local")]
    Engine {
        #[command(subcommand)]
        command: EngineCommand,
    },
    /// The models there are: list them, load and unload them
    #[command(args_conflicts_with_subcommands = true)]
    Models {
        #[command(subcommand)]
        command: Option<ModelsCommand>,
        #[command(flatten)]
        list: ModelsArgs,
    },
    /// What a model takes and how fast it would be on a machine, before anything is loaded
    Estimate(EstimateArgs),
    /// Servers elsewhere: list, add, test, pair and remove them
    #[command(args_conflicts_with_subcommands = true)]
    Backends(Box<BackendsArgs>),
    /// The engine for other machines, and for any OpenAI client
    #[cfg(feature = "local")]
    #[command(args_conflicts_with_subcommands = true)]
    Serve(Box<ServeArgs>),
    /// What works on this machine and what does not: devices, engine, models, backends, terminal, files
    Doctor {
        /// Print one JSON object
        #[arg(long)]
        json: bool,
    },
    /// Where a question would go, and why; nothing is sent
    Route(RouteArgs),
    /// Measured speeds, and how well they were predicted
    Stats {
        /// Print one JSON object
        #[arg(long)]
        json: bool,
    },
    /// Saved conversations
    #[command(args_conflicts_with_subcommands = true)]
    Sessions {
        #[command(subcommand)]
        command: Option<SessionsCommand>,
        #[command(flatten)]
        list: ListArgs,
    },
    /// The configuration file
    Config {
        #[command(subcommand)]
        command: ConfigCommand,
    },
}

/// The question whose way is asked for.
#[derive(Debug, Args)]
pub(super) struct RouteArgs {
    /// The question; words are joined
    #[arg(value_name = "QUESTION", required = true)]
    pub(super) words: Vec<String>,
    /// Model to ask: a name, `backend/name`, an alias, or a GGUF file
    #[arg(short = 'm', long = "model", value_name = "MODEL")]
    pub(super) model: Option<String>,
    /// Backend to ask: `local`, or one from the configuration
    #[arg(long = "on", value_name = "BACKEND")]
    pub(super) backend: Option<String>,
    /// A file that would be added to the question; can be given several times
    #[arg(short = 'f', long = "file", value_name = "FILE")]
    pub(super) files: Vec<PathBuf>,
    /// As if the conversation used last were gone on with
    #[arg(short = 'c', long = "continue")]
    pub(super) go_on: bool,
    /// As if the privacy fence were lifted
    #[arg(long)]
    pub(super) lift_fence: bool,
    /// Print one JSON object
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Debug, Subcommand)]
pub(super) enum ModelsCommand {
    /// List them: what they are, what is resident, what would fit
    List(ModelsArgs),
    /// Load one now. Idle ones leave when they are in the way
    Load {
        /// Its id as listed, the beginning of it, or a GGUF file
        model: String,
        /// Context in tokens
        #[arg(long, value_name = "TOKENS", value_parser = |s: &str| whole_from(s, &1_u32), allow_negative_numbers = true)]
        context: Option<u32>,
        /// Keep it whatever else is wanted
        #[arg(long)]
        pin: bool,
        /// Seconds it stays after its last answer; -1 is for ever
        #[arg(long, value_name = "SECONDS", value_parser = |s: &str| whole_from(s, &-1_i64), allow_negative_numbers = true)]
        keep_alive: Option<i64>,
        #[command(flatten)]
        on: OnArgs,
    },
    /// Unload one
    Unload {
        /// Its id
        model: String,
        #[command(flatten)]
        on: OnArgs,
    },
    /// Keep one whatever else is wanted
    Pin {
        /// Its id
        model: String,
        #[command(flatten)]
        on: OnArgs,
    },
    /// Let one go again when it is idle
    Unpin {
        /// Its id
        model: String,
        #[command(flatten)]
        on: OnArgs,
    },
}

/// Whose models are meant.
#[derive(Clone, Debug, Args)]
pub(super) struct OnArgs {
    /// Backend whose models are meant; this machine's engine when left out
    #[arg(long = "on", value_name = "BACKEND")]
    pub(super) backend: Option<String>,
}

/// How models are listed.
#[derive(Clone, Debug, Args)]
pub(super) struct ModelsArgs {
    #[command(flatten)]
    pub(super) on: OnArgs,
    /// Print one JSON object a line
    #[arg(long)]
    pub(super) json: bool,
}

/// What is to be estimated, and on which machines.
#[derive(Clone, Debug, Args)]
pub(super) struct EstimateArgs {
    /// A GGUF file, a model of `tui models`, a known one (`llama-3.1-8b:q4_k_m`), or a size (`13b:q4_k_m`)
    #[arg(value_name = "MODEL")]
    pub(super) model: Option<String>,
    /// A known machine (`rtx4090`, `m4-max-64`), or a backend; can be given several times. Without it: this machine and the
    /// backends whose hardware is configured
    #[arg(long, value_name = "MACHINE")]
    pub(super) on: Vec<String>,
    /// Two machines, of which the better one is named
    #[arg(long, num_args = 2, value_names = ["A", "B"])]
    pub(super) compare: Vec<String>,
    /// Context in tokens; as many as the engine takes by itself when left out
    #[arg(long, value_name = "TOKENS", value_parser = |s: &str| whole_from(s, &1_u32), allow_negative_numbers = true)]
    pub(super) context: Option<u32>,
    /// Print one JSON object
    #[arg(long)]
    pub(super) json: bool,
    /// List the known machines, with the source of each figure
    #[arg(long, conflicts_with_all = ["model", "on", "compare", "context"])]
    pub(super) machines: bool,
}

#[derive(Debug, Subcommand)]
pub(super) enum SessionsCommand {
    /// List them, the one used last first
    List(ListArgs),
    /// Print one
    Show {
        /// Its id, the beginning of its id, or its title
        id: String,
    },
}

/// How saved conversations are listed.
#[derive(Clone, Copy, Debug, Args)]
pub(super) struct ListArgs {
    /// How many at most
    #[arg(short = 'n', long, value_name = "N", default_value = "50", value_parser = whole::<usize>, allow_negative_numbers = true)]
    pub(super) limit: usize,
    /// Print one JSON object a line
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Clone, Copy, Debug, Subcommand)]
pub(super) enum ConfigCommand {
    /// Print where the file is
    Path,
    /// Print the configuration in force, defaults included
    Show,
    /// Check the file, and that what it names exists
    Check,
}

/// Everything that belongs to a question or to the interface.
#[derive(Debug, Args)]
pub(super) struct AskArgs {
    /// The question; words are joined. `-` reads it from stdin
    #[arg(value_name = "QUESTION")]
    pub(super) words: Vec<String>,
    /// Answer on stdout and exit, even where the question begins like a subcommand
    #[arg(short = 'p', long = "print")]
    pub(super) print: bool,
    /// Add a file to the question; `-` is stdin. Can be given several times
    #[arg(short = 'f', long = "file", value_name = "FILE")]
    pub(super) files: Vec<PathBuf>,
    /// Go on with the conversation used last
    #[arg(short = 'c', long = "continue", conflicts_with = "resume")]
    pub(super) go_on: bool,
    /// Go on with this conversation: an id, its beginning, or a title; without one, choose
    #[arg(long, value_name = "ID", num_args = 0..=1)]
    pub(super) resume: Option<Option<String>>,
    /// Don't save this conversation
    #[arg(long)]
    pub(super) no_save: bool,
    /// Let files behind the privacy fence leave this machine, for this question only
    #[arg(long)]
    pub(super) lift_fence: bool,

    /// Model to ask: a name, `backend/name`, an alias, or a GGUF file
    #[arg(short = 'm', long = "model", value_name = "MODEL", help_heading = "Model")]
    pub(super) model: Option<String>,
    /// Backend to ask: `local`, or one from the configuration
    #[arg(long = "on", value_name = "BACKEND", help_heading = "Model")]
    pub(super) backend: Option<String>,
    /// System prompt; an empty one means none
    #[arg(long, value_name = "TEXT", conflicts_with = "prompt", help_heading = "Model")]
    pub(super) system: Option<String>,
    /// A system prompt by name: coder, default, explain, review, terse, translate, or your own
    #[arg(long, value_name = "NAME", help_heading = "Model")]
    pub(super) prompt: Option<String>,
    #[command(flatten)]
    pub(super) sampling: SamplingArgs,

    /// Print one JSON object when the answer is complete
    #[arg(long, conflicts_with = "jsonl", help_heading = "Output")]
    pub(super) json: bool,
    /// Print events as they come, one JSON object a line
    #[arg(long, help_heading = "Output")]
    pub(super) jsonl: bool,
    /// Print only the last code block of the answer
    #[arg(short = 'x', long = "code", conflicts_with_all = ["json", "jsonl"], help_heading = "Output")]
    pub(super) code: bool,
    /// Print the answer when it is complete, not as it comes
    #[arg(long, help_heading = "Output")]
    pub(super) no_stream: bool,
    /// Whether the model's thinking is printed to stderr
    #[arg(long, value_name = "WHEN", help_heading = "Output")]
    pub(super) think: Option<Think>,
    /// Nothing on stderr but errors
    #[arg(short = 'q', long, help_heading = "Output")]
    pub(super) quiet: bool,
    /// Give up after this many seconds
    #[arg(long, value_name = "SECONDS", value_parser = seconds, help_heading = "Output")]
    pub(super) timeout: Option<f64>,
    /// Make the answer follow the JSON schema in this file
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    pub(super) schema: Option<PathBuf>,

    /// When to use colours
    #[arg(long, value_name = "WHEN", default_value = "auto", help_heading = "Interface")]
    pub(super) color: Color,
    /// Theme of the interface
    #[arg(long, value_name = "NAME", help_heading = "Interface")]
    pub(super) theme: Option<String>,
}

/// Sampling by flag; the model's own default where not given.
#[derive(Clone, Copy, Debug, Args)]
#[command(next_help_heading = "Sampling")]
pub(super) struct SamplingArgs {
    /// Randomness: 0 always takes the likeliest token
    #[arg(long, value_name = "0..5", value_parser = |s: &str| within(s, 0.0, 5.0), allow_negative_numbers = true)]
    temp: Option<f32>,
    /// Keep this many of the likeliest tokens; 0 keeps all
    #[arg(long, value_name = "N", value_parser = |s: &str| whole_from(s, &0_i32), allow_negative_numbers = true)]
    top_k: Option<i32>,
    /// Keep the likeliest tokens up to this much probability
    #[arg(long, value_name = "0..1", value_parser = |s: &str| within(s, 0.0, 1.0), allow_negative_numbers = true)]
    top_p: Option<f32>,
    /// Keep tokens at least this likely, relative to the likeliest
    #[arg(long, value_name = "0..1", value_parser = |s: &str| within(s, 0.0, 1.0), allow_negative_numbers = true)]
    min_p: Option<f32>,
    /// Make recent tokens less likely; 1 is off
    #[arg(long, value_name = "0.1..10", value_parser = |s: &str| within(s, 0.1, 10.0), allow_negative_numbers = true)]
    repeat_penalty: Option<f32>,
    /// Taken off once for tokens already used
    #[arg(long, value_name = "-2..2", value_parser = |s: &str| within(s, -2.0, 2.0), allow_negative_numbers = true)]
    presence_penalty: Option<f32>,
    /// Taken off for each earlier use of a token
    #[arg(long, value_name = "-2..2", value_parser = |s: &str| within(s, -2.0, 2.0), allow_negative_numbers = true)]
    frequency_penalty: Option<f32>,
    /// Seed of the random numbers
    #[arg(long, value_name = "N", value_parser = whole::<u32>, allow_negative_numbers = true)]
    seed: Option<u32>,
    /// Longest answer, in tokens
    #[arg(long, value_name = "N", value_parser = |s: &str| whole_from(s, &1_u32), allow_negative_numbers = true)]
    pub(super) max_tokens: Option<u32>,
}

impl SamplingArgs {
    /// The settings given.
    pub(super) const fn settings(self) -> Sampling {
        Sampling {
            temperature: self.temp,
            top_k: self.top_k,
            top_p: self.top_p,
            min_p: self.min_p,
            repeat_penalty: self.repeat_penalty,
            presence_penalty: self.presence_penalty,
            frequency_penalty: self.frequency_penalty,
            seed: self.seed,
        }
    }
}

impl AskArgs {
    /// Whether anything given makes sense only for an answer on stdout.
    pub(super) fn wants_answer(&self) -> bool {
        self.print
            || !self.words.is_empty()
            || !self.files.is_empty()
            || self.json
            || self.jsonl
            || self.code
            || self.no_stream
            || self.quiet
            || self.think.is_some()
            || self.timeout.is_some()
            || self.schema.is_some()
            || self.lift_fence
    }
}

/// Whether thinking is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Think {
    /// On stderr, as it comes
    Show,
    /// Not at all
    Hide,
}

/// When to use colours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Color {
    /// Unless NO_COLOR is set
    Auto,
    /// Even if NO_COLOR is set
    Always,
    /// Not at all
    Never,
}

// What these say follows the name of the flag: `--seed needs a whole number, not "x"`.

fn within(text: &str, low: f32, high: f32) -> Result<f32, String> {
    match text.parse::<f32>() {
        Ok(value) if (low..=high).contains(&value) => Ok(value),
        _ => Err(format!("needs a number between {low} and {high}, not \"{text}\"")),
    }
}

fn whole<N: FromStr>(text: &str) -> Result<N, String> {
    text.parse().map_err(|_| {
        // Of digits alone, so it is too large or below zero.
        let is_number = text.parse::<i128>().is_ok();
        let what = if is_number { "a smaller whole number, 0 or above" } else { "a whole number" };
        format!("needs {what}, not \"{text}\"")
    })
}

fn whole_from<N: FromStr + PartialOrd + Display>(text: &str, low: &N) -> Result<N, String> {
    match text.parse::<N>() {
        Ok(value) if value >= *low => Ok(value),
        Ok(_) => Err(format!("needs a whole number, {low} or above, not \"{text}\"")),
        Err(_) => whole::<N>(text),
    }
}

fn seconds(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(value) if value > 0.0 && value <= 1e7 => Ok(value),
        _ => Err(format!("needs a number of seconds above 0, not \"{text}\"")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_definitions_hold_together() {
        Cli::command().debug_assert();
    }
}
