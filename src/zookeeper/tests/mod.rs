mod codec;
mod connection;
mod listener;
