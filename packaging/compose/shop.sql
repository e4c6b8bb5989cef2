-- What the sample's orders change. PostgreSQL runs it when its volume is new.
CREATE TABLE stock (sku text PRIMARY KEY, on_hand integer NOT NULL);
INSERT INTO stock VALUES ('mug', 100), ('tray', 100), ('bowl', 100);
