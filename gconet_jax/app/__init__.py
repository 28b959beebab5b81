"""A web page that finds what a group of photos has in common. Needs gradio.

`group` processes a visitor's photos; `page` builds and serves the page.

Data and how long it is kept:

- Uploads are files in a temporary folder. They are deleted once they are read or refused, as soon
  as the page handles the request. If the request never arrives, or is dropped because the queue is
  full, they are deleted after an hour.
- Incomplete uploads stay until the server stops.
- Each visitor's shrunk photos and maps are in the server's memory until the visitor starts over or
  an hour passes.
- Pictures that were shown and zips are files in the temporary folder for an hour.
- The temporary folder is deleted when the server stops.

The limits of an upload apply when it is read. They do not bound the disk space used until then: a
request may have a thousand files of the largest size. A proxy in front of the page can limit that.
"""
