use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

use super::*;

type Text = Channel<String, String>;

fn run(test: impl AsyncFnOnce(Text, Text, OwnedFd)) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let (left, right) = pair().unwrap();
        let raw = left.try_clone().unwrap();
        test(Channel::new(left).unwrap(), Channel::new(right).unwrap(), raw).await;
    });
}

#[test]
fn short_long_and_secret_messages_arrive_whole() {
    run(async |left, right, _| {
        for length in [0, 1, MAX_INLINE - 2, MAX_INLINE, 5 << 20] {
            let text = "x".repeat(length);
            left.send(&text, &[]).await.unwrap();
            assert_eq!(right.receive().await.unwrap().0, text);
        }
        left.send_secret(&"key".to_owned(), &[]).await.unwrap();
        let (text, descriptors) = right.receive().await.unwrap();
        assert_eq!((text.as_str(), descriptors.len()), ("key", 0));
    });
}

#[test]
fn descriptors_arrive_in_order_and_work() {
    run(async |left, right, _| {
        let pairs: Vec<_> = (0..MAX_DESCRIPTORS).map(|_| UnixStream::pair().unwrap()).collect();
        let descriptors: Vec<_> = pairs.iter().map(|(_, theirs)| theirs.as_fd()).collect();
        for text in ["short".to_owned(), "long".repeat(MAX_INLINE)] {
            left.send(&text, &descriptors).await.unwrap();
            let (_, received) = right.receive().await.unwrap();
            for (at, (received, (mine, _))) in received.into_iter().zip(&pairs).enumerate() {
                UnixStream::from(received).write_all(&[at as u8]).unwrap();
                let mut byte = [0];
                (&*mine).read_exact(&mut byte).unwrap();
                assert_eq!(byte, [at as u8]);
            }
        }
    });
}

#[test]
fn a_closed_channel_says_so() {
    run(async |left, right, raw| {
        drop((left, raw));
        assert!(matches!(right.receive().await, Err(ChannelError::Closed)));
        assert!(matches!(right.send(&String::new(), &[]).await, Err(ChannelError::Closed)));
    });
}

#[test]
fn strangers_packets_are_errors() {
    run(async |_left, right, raw| {
        let write = |bytes: &[u8]| rustix::io::write(&raw, bytes).unwrap();
        write(b"\x00not json");
        assert!(matches!(right.receive().await, Err(ChannelError::Json(_))));
        write(b"\x01");
        assert!(matches!(right.receive().await, Err(ChannelError::Packet)));
        write(b"\x07");
        assert!(matches!(right.receive().await, Err(ChannelError::Packet)));
        write(&vec![0; MAX_INLINE + 3]);
        assert!(matches!(right.receive().await, Err(ChannelError::TooLong)));
    });
}

#[test]
fn a_file_that_could_change_or_block_is_refused() {
    run(async |_left, right, raw| {
        let pipe = rustix::pipe::pipe().unwrap().0;
        let unsealed = rustix::fs::memfd_create("test", MemfdFlags::ALLOW_SEALING).unwrap();
        for descriptor in [pipe, unsealed] {
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
            let mut control = SendAncillaryBuffer::new(&mut space);
            let descriptors = [descriptor.as_fd()];
            assert!(control.push(SendAncillaryMessage::ScmRights(&descriptors)));
            rustix::net::sendmsg(&raw, &[IoSlice::new(&[IN_FILE])], &mut control, SendFlags::empty())
                .unwrap();
            assert!(matches!(right.receive().await, Err(ChannelError::Packet)));
        }
    });
}
