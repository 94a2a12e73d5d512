mod codec;
mod connection;
mod listener;
mod nodes;
mod words;
