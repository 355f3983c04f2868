use super::*;

#[tokio::test]
async fn the_link_says_which_ends_the_node_sees_and_nothing_else_does() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let near = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (far, _) = listener.accept().await.unwrap();
    let ends = ends(&near);
    assert_eq!(ends.as_ref().unwrap(), "127.0.0.1 127.0.0.1");
    let serving = tokio::spawn(async move {
        let (mut served, mut said) = (h2::server::handshake(far).await.unwrap(), Vec::new());
        while let Some(Ok((request, mut respond))) = served.accept().await {
            let ends = request.headers().get(model::link::ENDS).cloned();
            said.push((request.uri().path().to_owned(), ends.is_some()));
            respond.send_response(http::Response::new(()), true).unwrap();
        }
        said
    });
    let (requests, connection) = h2::client::handshake(near).await.unwrap();
    let running = tokio::spawn(connection);
    let connection = Connection { requests, ends };
    connection.link().await.unwrap();
    connection.stream("flows", "the stream of flows").await.unwrap();
    drop(connection);
    running.await.unwrap().unwrap();
    let said = serving.await.unwrap();
    assert_eq!(said, [("/node/v1/link".to_owned(), true), ("/node/v1/flows".to_owned(), false)]);
}
