mod codec;
mod connection;
mod listener;
mod words;
