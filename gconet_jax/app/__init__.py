"""A page in the browser: drop a group of photos, see what they share. Needs gradio.

`group` is what is done with a visitor's photos, `page` what the browser shows of it.

What is kept, and how long. Gradio stores an upload as files in a temporary folder; they are deleted
once they were read, or refused, which is as soon as the page's request for it has its turn. If that
request never comes, or is dropped because others wait already, they stay until an hour has passed.
What is left of an upload that broke off stays until the server stops. Shrunk photos and maps are in
the memory of the server, of each visitor their own, until the visitor starts over or an hour
passes. Pictures that were shown and zips that were packed are files in the temporary folder for an
hour, and the folder goes when the server stops.

So the limits of an upload bound what is read, not what the disk holds meanwhile: a request may have
a thousand files of the largest size. A proxy before the page can bound that.
"""
